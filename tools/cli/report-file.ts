/** Files that a command writes its report to, besides what it prints. */
import { writeFileSync } from 'node:fs';
import { NewFile } from '../export/new-file.js';

export interface ReportFlags {
  readonly html?: string | undefined;
  readonly junit?: string | undefined;
}

export interface ReportTexts {
  readonly html: () => string;
  readonly junit: () => string;
}

/** Made before the work, so that a name that is taken is told at once. @throws UsageError for such a name. */
export class ReportFiles {
  private readonly files: readonly (readonly [kind: keyof ReportTexts, file: NewFile])[];

  constructor(flags: ReportFlags) {
    this.files = (['html', 'junit'] as const).flatMap((kind) => {
      const path = flags[kind];
      return path === undefined ? [] : [[kind, new NewFile(path)] as const];
    });
  }

  /** Each is there whole, or not at all. */
  write(texts: ReportTexts): void {
    for (const [kind, file] of this.files) {
      try {
        writeFileSync(file.path, texts[kind]());
        file.finish();
      } catch (error) {
        file.abandon();
        throw error;
      }
    }
  }
}
