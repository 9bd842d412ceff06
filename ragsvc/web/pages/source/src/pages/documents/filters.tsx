import { useEffect, useRef, useState } from "preact/hooks";
import type { CollectionInfo, DocumentCounts } from "../../api/documents";
import type { Query } from "../../api/request";
import { Button } from "../../components/button";
import { Field } from "../../components/field";
import { navigate, query } from "../../shell/router";
import { t, type TextKey } from "../../texts";
import { typeText } from "./status";

const STATUSES = ["ready", "processing", "queued", "failed"] as const;
const SORTINGS = [
  "created:desc",
  "created:asc",
  "updated:desc",
  "name:asc",
  "name:desc",
  "pages:desc",
  "pages:asc",
  "bytes:desc",
  "bytes:asc",
  "status:asc",
  "status:desc",
] as const;
/** Filters in the address of the page. */
const NAMES = ["name", "status", "collection", "type", "property"] as const;

/** The filters in the address, as the API takes them. */
export function filterQuery(): Query {
  const given = query.value;
  const filters = propertyFilter(given.get("property") ?? "");
  return {
    name: given.get("name") || null,
    status: given.get("status") || null,
    collection: given.get("collection") || null,
    media_type: given.get("type") || null,
    filters: filters ? JSON.stringify(filters) : null,
  };
}

export function sortQuery(): { sort: string; order: string } {
  const [sort = "created", order = "desc"] = (query.value.get("sort") ?? "created:desc").split(":");
  return { sort, order };
}

export function hasFilters(): boolean {
  return NAMES.some((name) => query.value.get(name));
}

/** `year=2024` as a filter; a value that looks like a number or a truth value is compared as text as well. */
function propertyFilter(text: string): object | null {
  const at = text.indexOf("=");
  const key = text.slice(0, at).trim();
  const value = text.slice(at + 1).trim();
  if (at < 1 || !key || !value) return null;
  const values: (string | number | boolean)[] = [value];
  const number = Number(value.replace(",", "."));
  if (Number.isFinite(number)) values.push(number);
  if (value === "true" || value === "false") values.push(value === "true");
  const filters = values.map((candidate) => ({ type: "eq", key, value: candidate }));
  return filters.length === 1 ? (filters[0] ?? null) : { type: "or", filters };
}

/** Changes the address; the list begins at its first page again. */
export function setFilters(values: Record<string, string>): void {
  const changed = new URLSearchParams(query.value);
  for (const [name, value] of Object.entries(values)) {
    if (value) changed.set(name, value);
    else changed.delete(name);
  }
  const text = changed.toString();
  navigate(text ? `/documents?${text}` : "/documents", { replace: true });
}

interface FilterBarProps {
  collections: readonly CollectionInfo[];
  counts: DocumentCounts | null;
}

export function FilterBar({ collections, counts }: FilterBarProps) {
  const given = query.value;
  const types = new Set([...Object.keys(counts?.media_types ?? {}), given.get("type") ?? ""]);
  types.delete("");
  const select = (name: string) => (event: { currentTarget: HTMLSelectElement }) =>
    setFilters({ [name]: event.currentTarget.value });
  return (
    <form class="filters" role="search" aria-label={t("documents.filter")} onSubmit={(event) => event.preventDefault()}>
      <Field label={t("documents.filter.name")}>
        <DelayedInput value={given.get("name") ?? ""} onValue={(name) => setFilters({ name })} />
      </Field>
      <Field label={t("documents.filter.status")}>
        <select value={given.get("status") ?? ""} onChange={select("status")}>
          <option value="">{t("documents.filter.any")}</option>
          {STATUSES.map((status) => (
            <option key={status} value={status}>
              {t(`documents.status.${status}`)}
              {counts ? ` (${counts[status]})` : ""}
            </option>
          ))}
        </select>
      </Field>
      <Field label={t("documents.filter.collection")}>
        <select value={given.get("collection") ?? ""} onChange={select("collection")}>
          <option value="">{t("documents.filter.any")}</option>
          {collections.map((collection) => (
            <option key={collection.name} value={collection.name}>
              {collection.name}
            </option>
          ))}
        </select>
      </Field>
      <Field label={t("documents.filter.type")}>
        <select value={given.get("type") ?? ""} onChange={select("type")}>
          <option value="">{t("documents.filter.any")}</option>
          {[...types].map((type) => (
            <option key={type} value={type}>
              {typeText(type)}
            </option>
          ))}
        </select>
      </Field>
      <Field label={t("documents.filter.metadata")}>
        <DelayedInput
          value={given.get("property") ?? ""}
          placeholder={t("documents.filter.metadata.hint")}
          onValue={(property) => setFilters({ property })}
        />
      </Field>
      <Field label={t("documents.filter.sort")}>
        <select value={given.get("sort") ?? "created:desc"} onChange={select("sort")}>
          {SORTINGS.map((sorting) => (
            <option key={sorting} value={sorting}>
              {t(`documents.sort.${sorting}` as TextKey)}
            </option>
          ))}
        </select>
      </Field>
      {hasFilters() ? (
        <Button
          small
          icon="close"
          onClick={() => setFilters(Object.fromEntries(NAMES.map((name) => [name, ""])))}
        >
          {t("documents.filter.clear")}
        </Button>
      ) : null}
    </form>
  );
}

interface DelayedInputProps {
  value: string;
  placeholder?: string;
  onValue: (value: string) => void;
  /** Given by `Field`. */
  id?: string;
}

/** A text field that reports its value when the reader stops typing. */
function DelayedInput({ value, onValue, placeholder, ...rest }: DelayedInputProps) {
  const [text, setText] = useState(value);
  const reported = useRef(value);
  const timer = useRef(0);
  useEffect(() => {
    if (value === reported.current) return; // the reader may have typed more since
    window.clearTimeout(timer.current);
    reported.current = value;
    setText(value);
  }, [value]);
  useEffect(() => () => window.clearTimeout(timer.current), []);
  return (
    <input
      {...rest}
      type="search"
      placeholder={placeholder ?? ""}
      value={text}
      onInput={(event) => {
        const typed = event.currentTarget.value;
        setText(typed);
        window.clearTimeout(timer.current);
        timer.current = window.setTimeout(() => {
          reported.current = typed;
          onValue(typed);
        }, 300);
      }}
    />
  );
}
