import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ApiError } from "../../api/errors";
import { listCollections } from "../../api/documents";
import { createKey, listModels, updateKey, type IssuedKey, type Key, type KeyFields, type OwnKey, type TenantView } from "../../api/keys";
import { hasScope, session, type Scope } from "../../api/session";
import { Button } from "../../components/button";
import { Dialog } from "../../components/dialog";
import { Field } from "../../components/field";
import { Notice } from "../../components/notice";
import { errorText } from "../../components/toast";
import { formatTime, t, type TextKey } from "../../texts";
import { budgets, formatLimit, isMoney, limitText, parseAmount, parseWhole, rates, type LimitName } from "./limits";

const scopes: readonly Scope[] = [
  "chat",
  "chat.plain",
  "search",
  "documents.read",
  "documents.write",
  "embeddings",
  "proxy",
  "tenant.admin",
  "admin",
];
const usualScopes: readonly Scope[] = ["chat", "search", "documents.read"];

/** Names of collections in the hint. */
const SHOWN = 20;
const DAY_S = 86_400;
const periods = { day: 1, week: 7, month: 30, quarter: 90, year: 365 } as const;
type Expiry = "never" | "kept" | "own" | "date" | keyof typeof periods;

interface Draft {
  label: string;
  tenant: string;
  scopes: Scope[];
  allModels: boolean;
  models: string[];
  otherModels: string;
  collections: string;
  limits: Record<LimitName, string>;
  expiry: Expiry;
  date: string;
}

type Errors = Partial<Record<string, string>>;

interface KeyFormProps {
  /** The key to change; null to create one. */
  existing: Key | null;
  /** The caller's key, whose limits a tenant administrator cannot exceed. */
  own: OwnKey | null;
  tenants: readonly TenantView[];
  tenant: string | null;
  onClose: () => void;
  onCreated: (issued: IssuedKey) => void;
  onChanged: (key: Key) => void;
}

function lines(text: string): string[] {
  return [...new Set(text.split("\n").map((line) => line.trim()).filter(Boolean))];
}

/** What bounds the keys that a tenant administrator makes; null where nothing does. */
function bound(own: OwnKey | null, name: LimitName): number | null {
  if (!own || hasScope("admin")) return null;
  if (name === "token_balance") return own.tokens_granted;
  if (name === "money_balance") return own.money_granted;
  return own[name];
}

function firstDraft({ existing, own, tenant }: KeyFormProps): Draft {
  const limits = {} as Record<LimitName, string>;
  for (const name of [...budgets, ...rates]) limits[name] = limitText(existing ? existing[name] : bound(own, name));
  const ownExpiry = hasScope("admin") ? null : (own?.expires_at ?? null);
  const bounded = !hasScope("admin") && own && own.allowed_models.length > 0;
  const models = existing ? existing.allowed_models : bounded ? own.allowed_models : [];
  const collections = existing ? existing.allowed_collections : hasScope("admin") ? [] : (own?.allowed_collections ?? []);
  return {
    label: existing?.label ?? "",
    tenant: existing?.tenant ?? tenant ?? session.value?.key.tenant ?? "",
    scopes: existing ? existing.scopes : [...usualScopes],
    allModels: models.length === 0,
    models,
    otherModels: "",
    collections: collections.join("\n"),
    limits,
    expiry: existing?.expires_at ? "kept" : existing || ownExpiry === null ? "never" : "own",
    date: "",
  };
}

export function KeyForm(props: KeyFormProps) {
  const { existing, own, tenants, onClose, onCreated, onChanged } = props;
  const [draft, setDraft] = useState<Draft>(() => firstDraft(props));
  const [errors, setErrors] = useState<Errors>({});
  const [failure, setFailure] = useState("");
  const [busy, setBusy] = useState(false);
  const [known, setKnown] = useState<string[]>([]);
  const [collections, setCollections] = useState<string[]>([]);
  useEffect(() => {
    listModels().then(setKnown, () => setKnown([])); // names can be typed as well
    if (!hasScope("documents.read")) return;
    listCollections().then(
      (found) => setCollections(found.map((each) => each.name)),
      () => setCollections([]),
    );
  }, []);
  const change = (part: Partial<Draft>): void => setDraft({ ...draft, ...part });

  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    const { fields, problems } = fieldsOf(draft, existing, own);
    setErrors(problems);
    setFailure("");
    if (Object.keys(problems).length > 0) {
      const form = event.currentTarget as HTMLFormElement;
      requestAnimationFrame(() => form.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus());
      return;
    }
    setBusy(true);
    try {
      if (existing) onChanged(await updateKey(existing.id, fields));
      else onCreated(await createKey(fields));
    } catch (error) {
      const field = error instanceof ApiError ? error.param : null;
      if (field && field in draft.limits) setErrors({ [field]: errorText(error) });
      else if (field === "label") setErrors({ label: errorText(error) });
      else setFailure(errorText(error));
      setBusy(false);
    }
  };

  const title = existing ? t("keys.edit.title", { label: existing.label }) : t("keys.create");
  const names = [...new Set([...known, ...draft.models])];
  const isOwnTenant = draft.tenant === session.value?.key.tenant; // whose collections are known
  const there = isOwnTenant && collections.length ? t("keys.collections.known", { names: collections.slice(0, SHOWN).join(", ") }) : "";
  return (
    <Dialog
      wide
      open
      title={title}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>{t("shell.cancel")}</Button>
          <Button kind="primary" type="submit" form="key-form" busy={busy}>
            {t(existing ? "keys.edit.submit" : "keys.create.submit")}
          </Button>
        </>
      }
    >
      <form id="key-form" class="keys-form" onSubmit={submit} noValidate>
        <div class="keys-columns">
          <Field label={t("keys.label")} hint={t("keys.label.hint")} error={errors["label"]}>
            <input autoFocus={!existing} value={draft.label} maxLength={100} autocomplete="off" onInput={(event) => change({ label: event.currentTarget.value })} />
          </Field>
          {!existing && hasScope("admin") ? (
            <Field label={t("keys.tenant")}>
              <input
                value={draft.tenant}
                list="key-form-tenants"
                maxLength={64}
                onInput={(event) => change({ tenant: event.currentTarget.value })}
              />
            </Field>
          ) : null}
          <datalist id="key-form-tenants">
            {tenants.map((one) => (
              <option key={one.name} value={one.name} />
            ))}
          </datalist>
        </div>

        <Choices legend={t("keys.permissions")} error={errors["scopes"]}>
          {scopes
            .filter((scope) => scope !== "admin" || hasScope("admin"))
            .map((scope) => (
              <label key={scope}>
                <input
                  type="checkbox"
                  checked={draft.scopes.includes(scope)}
                  onChange={(event) =>
                    change({
                      scopes: event.currentTarget.checked
                        ? [...draft.scopes, scope]
                        : draft.scopes.filter((other) => other !== scope),
                    })
                  }
                />
                {t(`keys.scope.${scope}`)}
              </label>
            ))}
        </Choices>

        <Limits names={budgets} legend={t("keys.budgets")} draft={draft} change={change} errors={errors} existing={existing} own={own} />

        <fieldset>
          <legend>{t("keys.expires")}</legend>
          <div class="keys-columns">
            <Field label={t("keys.expires")} hideLabel>
              <select value={draft.expiry} onChange={(event) => change({ expiry: event.currentTarget.value as Expiry })}>
                <ExpiryOptions existing={existing} own={own} />
              </select>
            </Field>
            {draft.expiry === "date" ? (
              <Field label={t("keys.expiry.day_of")} error={errors["expires_at"]}>
                <input type="date" value={draft.date} onInput={(event) => change({ date: event.currentTarget.value })} />
              </Field>
            ) : null}
          </div>
        </fieldset>

        <Choices legend={t("keys.models")} error={errors["allowed_models"]}>
          <label>
            <input type="radio" name="models" checked={draft.allModels} onChange={() => change({ allModels: true })} />
            {t("keys.models.all")}
          </label>
          <label>
            <input type="radio" name="models" checked={!draft.allModels} onChange={() => change({ allModels: false })} />
            {t("keys.models.some")}
          </label>
        </Choices>
        {draft.allModels ? null : (
          <>
            <div class="keys-choices" role="group" aria-label={t("keys.models.some")}>
              {names.map((name) => (
                <label key={name}>
                  <input
                    type="checkbox"
                    checked={draft.models.includes(name)}
                    onChange={(event) =>
                      change({
                        models: event.currentTarget.checked
                          ? [...draft.models, name]
                          : draft.models.filter((other) => other !== name),
                      })
                    }
                  />
                  {name}
                </label>
              ))}
            </div>
            <Field label={t("keys.models.other")} hint={t("keys.models.other.hint")}>
              <textarea rows={2} value={draft.otherModels} onInput={(event) => change({ otherModels: event.currentTarget.value })} />
            </Field>
          </>
        )}
        <Field label={t("keys.collections")} hint={`${t("keys.collections.hint")} ${there}`}>
          <textarea rows={2} value={draft.collections} onInput={(event) => change({ collections: event.currentTarget.value })} />
        </Field>
        <Limits names={rates} legend={t("keys.rates")} draft={draft} change={change} errors={errors} existing={existing} own={own} />
        {failure ? <Notice kind="error">{failure}</Notice> : null}
      </form>
    </Dialog>
  );
}

function Choices({ legend, error, children }: { legend: string; error: string | undefined; children: JSX.Element | JSX.Element[] }) {
  return (
    <fieldset aria-invalid={error ? "true" : undefined} tabIndex={error ? -1 : undefined}>
      <legend>{legend}</legend>
      <div class="keys-choices">{children}</div>
      {error ? (
        <div class="field-error" role="alert">
          {error}
        </div>
      ) : null}
    </fieldset>
  );
}

interface LimitsProps {
  names: readonly LimitName[];
  legend: string;
  draft: Draft;
  change: (part: Partial<Draft>) => void;
  errors: Errors;
  existing: Key | null;
  own: OwnKey | null;
}

function Limits({ names, legend, draft, change, errors, existing, own }: LimitsProps) {
  return (
    <fieldset>
      <legend>{legend}</legend>
      <div class="keys-columns">
        {names.map((name) => {
          const most = bound(own, name);
          const balance = name === "token_balance" || name === "money_balance";
          const label: TextKey = existing && balance ? `keys.limit.${name}.left` : `keys.limit.${name}`;
          const usesDefault = !existing && (name === "requests_per_minute" || name === "requests_per_hour");
          const hint = most === null ? t(usesDefault ? "keys.limit.default" : "keys.limit.empty") : t("keys.limit.most", { limit: formatLimit(name, most) });
          return (
            <Field key={name} label={t(label)} hint={hint} error={errors[name]}>
              <input
                inputMode={isMoney(name) ? "decimal" : "numeric"}
                autocomplete="off"
                value={draft.limits[name]}
                onInput={(event) => change({ limits: { ...draft.limits, [name]: event.currentTarget.value } })}
              />
            </Field>
          );
        })}
      </div>
    </fieldset>
  );
}

function ExpiryOptions({ existing, own }: { existing: Key | null; own: OwnKey | null }) {
  const bounded = hasScope("admin") ? null : (own?.expires_at ?? null);
  const now = Date.now() / 1000;
  return (
    <>
      {existing?.expires_at ? <option value="kept">{t("keys.expiry.kept", { time: formatTime(existing.expires_at, "date") })}</option> : null}
      {bounded === null ? <option value="never">{t("keys.expiry.never")}</option> : <option value="own">{t("keys.expiry.own", { time: formatTime(bounded, "date") })}</option>}
      {(Object.keys(periods) as (keyof typeof periods)[])
        .filter((name) => bounded === null || now + periods[name] * DAY_S <= bounded)
        .map((name) => (
          <option key={name} value={name}>
            {t(`keys.expiry.${name}`)}
          </option>
        ))}
      <option value="date">{t("keys.expiry.date")}</option>
    </>
  );
}

/** The fields to send, and what is wrong with the draft. */
function fieldsOf(draft: Draft, existing: Key | null, own: OwnKey | null): { fields: KeyFields; problems: Errors } {
  const problems: Errors = {};
  const fields: KeyFields = { label: draft.label.trim(), scopes: draft.scopes };
  if (!fields.label) problems["label"] = t("keys.label.missing");
  if (draft.scopes.length === 0) problems["scopes"] = t("keys.permissions.missing");
  fields.allowed_models = draft.allModels ? [] : [...new Set([...draft.models, ...lines(draft.otherModels)])];
  if (!draft.allModels && fields.allowed_models.length === 0) problems["allowed_models"] = t("keys.models.missing");
  fields.allowed_collections = lines(draft.collections);
  for (const name of [...budgets, ...rates]) {
    const value = isMoney(name) ? parseAmount(draft.limits[name]) : parseWhole(draft.limits[name]);
    if (value === undefined) problems[name] = t(isMoney(name) ? "keys.money.wrong" : "keys.limit.wrong");
    else if (existing ? value !== existing[name] : value !== null) fields[name] = value;
  }
  const expiry = expiryOf(draft, own);
  if (expiry === undefined) problems["expires_at"] = t("keys.expiry.missing");
  else if (expiry !== "kept") fields.expires_at = expiry;
  if (!existing) fields.tenant = draft.tenant.trim();
  return { fields, problems };
}

function expiryOf(draft: Draft, own: OwnKey | null): number | null | "kept" | undefined {
  const now = Math.floor(Date.now() / 1000);
  switch (draft.expiry) {
    case "kept":
      return "kept";
    case "never":
      return null;
    case "own":
      return own?.expires_at ?? null;
    case "date": {
      const end = Date.parse(`${draft.date}T23:59:59`); // the whole of that day, where the reader is
      return Number.isNaN(end) || end / 1000 <= now ? undefined : Math.floor(end / 1000);
    }
    default:
      return now + periods[draft.expiry] * DAY_S;
  }
}
