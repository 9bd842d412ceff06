import type { Texts } from "./catalogue";

/** Keys begin with `ask.`. */
export const ask = {} satisfies Texts;
