import type { Texts } from "./catalogue";

/** Keys begin with `service.`. */
export const service = {} satisfies Texts;
