/** `vmtape export … --kvm FOLDER`: vCPUs as KVM's structures, and what those do not carry by name. */
import { formatPosition } from '../../src/journal/index.js';
import { exportKvm, type KvmManifest } from '../../src/replay/index.js';
import { writeFolder } from '../export/kvm-folder.js';
import { UsageError } from './failure.js';
import { plural } from './format.js';
import { standingMachine } from './standing-machine.js';
import type { Terminal } from './terminal.js';

export interface KvmOptions {
  readonly kvm: string;
  readonly at: string | undefined;
  readonly ram: boolean;
  /** Written even if state of a vCPU is lost. */
  readonly lossy: boolean;
}

/** @throws UsageError when the structures do not carry all of the vCPUs, and that was not asked for. */
export async function exportKvmFolder(source: string, options: KvmOptions, terminal: Terminal): Promise<void> {
  const { kvm, at, ram, lossy } = options;
  const standing = standingMachine(source, at);
  try {
    const snapshot = standing.snapshot();
    const made = exportKvm(snapshot, ram);
    const { lost = [], outside = [], copies = [] } = made.manifest.notCarried ?? {};
    if (lost.length > 0 && !lossy) {
      const states = lost.map(({ state, value }) => `${state} (${value})`).join(', ');
      throw new UsageError(
        `${kvm}: KVM’s structures have no room for ${states}. Nothing was made. --lossy writes the rest all the same.`,
      );
    }
    writeFolder(kvm, made, snapshot.ram);
    const position = formatPosition(standing.position);
    if (terminal.json) {
      const { notKept = [] } = made.manifest;
      await terminal.document({
        source,
        folder: kvm,
        position,
        files: [...made.files.keys()],
        lost,
        copies,
        outside,
        notKept,
      });
      return;
    }
    terminal.say(`vmtape: ${kvm}: ${source} at ${position}, ${plural(made.manifest.vcpus.length, 'vCPU')}`);
    for (const line of remarks(made.manifest)) terminal.say(`vmtape: ${line}`);
  } finally {
    standing.close();
  }
}

function remarks({ notCarried, notKept = [], ram }: KvmManifest): readonly string[] {
  const { lost = [], outside = [], copies = [] } = notCarried ?? {};
  const parts = ram === undefined ? [...outside, 'RAM (--ram writes it)'] : outside;
  return [
    ...lost.map(({ state, value }) => `lost: ${state} (${value})`),
    `not in the structures: ${parts.join(', ')}`,
    ...(copies.length === 0
      ? []
      : [`not in the structures, and made anew: ${copies.length} copies of a guest's controls`]),
    ...notKept.flatMap(({ vcpu, states }) =>
      states.map(({ state, text }) => `not kept by KVM: vCPU ${vcpu} ${state}: ${text}`),
    ),
  ];
}
