/** Models of whole tapes, for the tests of pictures. */
import { type JournalReader, START } from '../../../src/journal/index.js';
import { type ModelOptions, type TimelineModel, timelineModel } from '../../../tools/timeline/model.js';

export function modelOf(
  reader: JournalReader,
  options: Partial<ModelOptions> & Pick<ModelOptions, 'bins'>,
): TimelineModel {
  const work = timelineModel(reader, { from: START, to: reader.end, ...options });
  for (;;) {
    const { done, value } = work.next();
    if (done === true) return value;
  }
}
