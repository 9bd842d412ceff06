import type { Texts } from "./catalogue";

/** Keys begin with `keys.`. */
export const keys = {} satisfies Texts;
