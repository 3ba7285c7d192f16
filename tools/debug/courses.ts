/** The recording that is debugged, and what was forked off it: diversions, each off the one before. */
import { formatPosition, type JournalReader, type JournalStore, memoryStore } from '../../src/journal/index.js';
import { Diversion, Timeline } from '../../src/replay/index.js';
import { VMTAPE_VERSION } from '../version.js';

/** Where a diversion's tape stays. */
export interface KeptTape {
  readonly store: JournalStore;
  readonly file: string;
}

/** Of what can be gone through: the recording, or a diversion. */
interface Course {
  readonly reader: JournalReader;
  readonly timeline: Timeline;
  readonly diversion: Diversion | undefined;
  readonly file: string | undefined;
}

export class Courses {
  private readonly courses: [Course, ...Course[]];

  /** @throws InputError when this vmtape cannot make the machine of the tape. */
  constructor(recording: JournalReader) {
    const timeline = new Timeline(recording);
    this.courses = [{ reader: recording, timeline, diversion: undefined, file: undefined }];
  }

  get current(): Course {
    return this.courses.at(-1) as Course;
  }

  /** In lines, the innermost first. */
  get lines(): readonly string[] {
    return this.courses
      .flatMap(({ diversion, file }, index) => {
        if (diversion === undefined) return [];
        const of = index === 1 ? 'the recording' : 'the diversion that the next line tells of';
        const kept = file === undefined ? 'kept until unfork' : `kept as ${file}`;
        return [`in a diversion of ${of}, forked at ${formatPosition(diversion.origin)}, ${kept}`];
      })
      .reverse();
  }

  /** @throws JournalError when there can be no such tape. */
  fork(kept: KeptTape | undefined): void {
    const { reader, timeline } = this.current;
    const place = { reader, machine: timeline.machine, position: timeline.position };
    const checkpointEvery = kept === undefined ? undefined : 'adaptive';
    const options = { vmtapeVersion: VMTAPE_VERSION, checkpointEvery } as const;
    const diversion = new Diversion(kept?.store ?? memoryStore(), place, options);
    this.courses.push({ reader: diversion.tape, timeline: diversion.timeline, diversion, file: kept?.file });
  }

  /** Ends the innermost diversion. @returns false when there is none. */
  leave(): boolean {
    if (this.courses.length === 1) return false;
    this.courses.pop()?.diversion?.finish();
    return true;
  }

  /** The recording's reader is its owner's to close. */
  close(): void {
    while (this.leave());
    this.courses[0].timeline.close();
  }
}
