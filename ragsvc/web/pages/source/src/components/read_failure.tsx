import { t } from "../texts";
import { Button } from "./button";
import { Notice } from "./notice";
import { errorText } from "./toast";

/** Why something could not be read, with a button that reads it again. */
export function ReadFailure({ error, onRetry }: { error: unknown; onRetry: () => void }) {
  return (
    <div class="stack">
      <Notice kind="error">{errorText(error)}</Notice>
      <div>
        <Button icon="retry" onClick={onRetry}>
          {t("shell.retry")}
        </Button>
      </div>
    </div>
  );
}
