import type { IssuedKey } from "../../api/keys";
import { prefix } from "../../api/prefix";
import { Button } from "../../components/button";
import { CopyField } from "../../components/copy_field";
import { Dialog } from "../../components/dialog";
import { Notice } from "../../components/notice";
import { t } from "../../texts";

/** Shows the secret of a new or rotated key; once it is closed, the secret is gone. */
export function SecretDialog({ issued, onClose }: { issued: IssuedKey | null; onClose: () => void }) {
  return (
    <Dialog
      title={t("keys.secret.title")}
      open={issued !== null}
      onClose={onClose}
      actions={
        <Button kind="primary" onClick={onClose}>
          {t("keys.secret.done")}
        </Button>
      }
    >
      <div class="stack">
        <Notice kind="warning">{t("keys.secret.text", { label: issued?.label ?? "" })}</Notice>
        <CopyField focus label={t("keys.secret.label")} value={issued?.key ?? ""} />
        <p class="small soft">{t("keys.secret.use", { pages: `${window.location.origin}${prefix}/`, address: `${window.location.origin}${prefix}/v1` })}</p>
      </div>
    </Dialog>
  );
}
