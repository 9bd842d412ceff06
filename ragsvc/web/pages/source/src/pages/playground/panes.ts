import type { Pricing } from "../../api/models";

/** What every pane of the playground gets. */
export interface PaneProps {
  model: string;
  /** Prices of the model; null if it is not listed. */
  pricing: Pricing | null;
  /** Names of the tenant's collections, if the key may list them. */
  collections: readonly string[];
}
