import { Fragment } from "preact";
import { useState } from "preact/hooks";
import { deleteKey, revokeKey, rotateKey, updateKey, type IssuedKey, type Key } from "../../api/keys";
import { session } from "../../api/session";
import { Button } from "../../components/button";
import { Dialog } from "../../components/dialog";
import { Field } from "../../components/field";
import { Notice } from "../../components/notice";
import { toast, toastError } from "../../components/toast";
import { formatTime, t } from "../../texts";
import { limitsInWords } from "./limits";

interface ActionProps {
  subject: Key;
  onClose: () => void;
}

function OwnWarning({ id }: { id: string }) {
  return session.value?.key.id === id ? <Notice kind="warning">{t("keys.own_warning")}</Notice> : null;
}

/** Asks before something that cannot be undone. */
function Confirm(props: { title: string; text: string; action: string; id: string; run: () => Promise<void>; onClose: () => void }) {
  const [busy, setBusy] = useState(false);
  const run = async (): Promise<void> => {
    setBusy(true);
    try {
      await props.run();
    } catch (error) {
      toastError(error);
      setBusy(false);
    }
  };
  return (
    <Dialog
      open
      title={props.title}
      onClose={props.onClose}
      actions={
        <>
          <Button onClick={props.onClose}>{t("shell.cancel")}</Button>
          <Button kind="danger" busy={busy} onClick={run}>
            {props.action}
          </Button>
        </>
      }
    >
      <div class="stack">
        <p>{props.text}</p>
        <OwnWarning id={props.id} />
      </div>
    </Dialog>
  );
}

export function RevokeDialog({ subject: key, onClose, onChanged }: ActionProps & { onChanged: (key: Key) => void }) {
  return (
    <Confirm
      id={key.id}
      title={t("keys.revoke.title", { label: key.label })}
      text={t("keys.revoke.text")}
      action={t("keys.revoke")}
      onClose={onClose}
      run={async () => {
        onChanged(await revokeKey(key.id));
        toast(t("keys.revoked", { label: key.label }), { kind: "success" });
      }}
    />
  );
}

export function DeleteDialog({ subject: key, onClose, onDeleted }: ActionProps & { onDeleted: () => void }) {
  return (
    <Confirm
      id={key.id}
      title={t("keys.delete.title", { label: key.label })}
      text={t("keys.delete.text")}
      action={t("keys.delete")}
      onClose={onClose}
      run={async () => {
        await deleteKey(key.id);
        toast(t("keys.deleted", { label: key.label }), { kind: "success" });
        onDeleted();
      }}
    />
  );
}

const overlaps = { none: 0, hour: 3_600, day: 86_400, week: 7 * 86_400 } as const;

export function RotateDialog({ subject: key, onClose, onRotated }: ActionProps & { onRotated: (issued: IssuedKey) => void }) {
  const [overlap, setOverlap] = useState<keyof typeof overlaps>("day");
  const [busy, setBusy] = useState(false);
  const run = async (): Promise<void> => {
    setBusy(true);
    try {
      onRotated(await rotateKey(key.id, overlaps[overlap]));
    } catch (error) {
      toastError(error);
      setBusy(false);
    }
  };
  return (
    <Dialog
      open
      title={t("keys.rotate.title", { label: key.label })}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>{t("shell.cancel")}</Button>
          <Button kind="primary" busy={busy} onClick={run}>
            {t("keys.rotate.submit")}
          </Button>
        </>
      }
    >
      <div class="stack">
        <p>{t("keys.rotate.text")}</p>
        <Field label={t("keys.rotate.overlap")}>
          <select value={overlap} onChange={(event) => setOverlap(event.currentTarget.value as keyof typeof overlaps)}>
            {(Object.keys(overlaps) as (keyof typeof overlaps)[]).map((name) => (
              <option key={name} value={name}>
                {t(`keys.rotate.${name}`)}
              </option>
            ))}
          </select>
        </Field>
      </div>
    </Dialog>
  );
}

export type KeyAction = "edit" | "rotate" | "revoke" | "delete" | "use" | "changes";

interface DetailsProps {
  subject: Key;
  onClose: () => void;
  onAction: (action: KeyAction) => void;
  onChanged: (key: Key) => void;
}

/** What a key may do, and the buttons that change it. */
export function DetailsDialog({ subject: key, onClose, onAction, onChanged }: DetailsProps) {
  const [busy, setBusy] = useState(false);
  const switchTo = async (state: "active" | "inactive"): Promise<void> => {
    setBusy(true);
    try {
      onChanged(await updateKey(key.id, { state }));
      toast(t(state === "active" ? "keys.switched_on" : "keys.switched_off", { label: key.label }), { kind: "success" });
    } catch (error) {
      toastError(error);
    }
    setBusy(false);
  };
  const usable = key.state !== "revoked";
  const isOwn = session.value?.key.id === key.id;
  return (
    <Dialog
      wide
      open
      title={key.label}
      onClose={onClose}
      actions={
        <>
          <Button icon="history" onClick={() => onAction("changes")}>
            {t("keys.open_changes")}
          </Button>
          <Button icon="outline" onClick={() => onAction("use")}>
            {t("keys.open_use")}
          </Button>
          {usable ? (
            <>
              <Button icon="edit" onClick={() => onAction("edit")}>
                {t("keys.edit")}
              </Button>
              <Button icon="retry" onClick={() => onAction("rotate")}>
                {t("keys.rotate")}
              </Button>
              {key.state === "inactive" ? (
                <Button busy={busy} onClick={() => switchTo("active")}>
                  {t("keys.switch_on")}
                </Button>
              ) : isOwn ? null : (
                <Button busy={busy} onClick={() => switchTo("inactive")}>
                  {t("keys.switch_off")}
                </Button>
              )}
              <Button kind="danger" onClick={() => onAction("revoke")}>
                {t("keys.revoke")}
              </Button>
            </>
          ) : (
            <Button kind="danger" icon="trash" onClick={() => onAction("delete")}>
              {t("keys.delete")}
            </Button>
          )}
        </>
      }
    >
      <KeyFacts of={key} />
    </Dialog>
  );
}

export function KeyFacts({ of: key }: { of: Key }) {
  const limits = limitsInWords(key);
  const facts: [string, string][] = [
    [t("keys.id"), key.id],
    [t("keys.tenant"), key.tenant],
    [t("keys.state"), t(`keys.state.${key.state}`)],
    [t("keys.permissions"), key.scopes.map((scope) => t(`keys.scope.${scope}`)).join("; ") || t("keys.permissions.none")],
    [t("keys.models"), key.allowed_models.join(", ") || t("keys.models.all")],
    [t("keys.collections"), key.allowed_collections.join(", ") || t("keys.collections.all")],
    [t("keys.limits"), limits.join("; ") || t("keys.no_limits")],
    [t("keys.expires"), key.expires_at === null ? t("keys.expiry.never") : formatTime(key.expires_at)],
    [t("keys.created"), formatTime(key.created_at)],
  ];
  const overlapping = key.previous_expires_at !== null && key.previous_expires_at * 1000 > Date.now();
  return (
    <div class="stack">
      <dl class="keys-facts">
        {facts.map(([name, value]) => (
          <Fragment key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </Fragment>
        ))}
      </dl>
      {overlapping ? <Notice>{t("keys.old_secret", { time: formatTime(key.previous_expires_at ?? 0) })}</Notice> : null}
    </div>
  );
}
