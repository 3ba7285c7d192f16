import { memoryStore } from '../../src/journal/memory-store.js';
import { describeStore } from './contract.js';

describeStore('the store in memory', memoryStore);
