import type { Texts } from "./catalogue";

/** Keys begin with `reference.`. */
export const reference = {} satisfies Texts;
