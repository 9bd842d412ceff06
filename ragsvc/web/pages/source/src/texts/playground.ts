import type { Texts } from "./catalogue";

/** Keys begin with `playground.`. */
export const playground = {} satisfies Texts;
