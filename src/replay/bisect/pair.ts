/** Two of a kind, one of each session that is compared. */
export type Pair<Item> = readonly [first: Item, second: Item];
