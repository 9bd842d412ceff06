import type { Texts } from "./catalogue";

/** Keys begin with `documents.`. */
export const documents = {} satisfies Texts;
