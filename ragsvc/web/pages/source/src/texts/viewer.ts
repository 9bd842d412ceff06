import type { Texts } from "./catalogue";

/** Keys begin with `viewer.`. */
export const viewer = {} satisfies Texts;
