import { useEffect, useMemo, useState } from "preact/hooks";
import { type ApiDescription, loadDescription, type Route } from "../../api/openapi";
import { href } from "../../api/prefix";
import { Field } from "../../components/field";
import { Notice } from "../../components/notice";
import { PageHeader } from "../../components/page_header";
import { Spinner } from "../../components/spinner";
import { errorText } from "../../components/toast";
import { query } from "../../shell/router";
import { t } from "../../texts";
import "./reference.css";
import { plain, SchemaView } from "./schema_view";
import { typeText } from "./schemas";
import { TryIt } from "./try_it";

export default function ReferencePage() {
  const [api, setApi] = useState<ApiDescription | null>(null);
  const [failure, setFailure] = useState("");
  const [search, setSearch] = useState("");
  useEffect(() => {
    loadDescription().then(setApi, (error: unknown) => setFailure(errorText(error)));
  }, []);
  const shown = query.value.get("operation");
  const route = api?.routes.find(({ operation }) => operation.operationId === shown) ?? null;
  return (
    <>
      <PageHeader title={t("nav.reference")}>
        <a href={href("/schema/openapi.json")} download="openapi.json">
          {t("reference.download")}
        </a>
      </PageHeader>
      {failure ? <Notice kind="error">{failure}</Notice> : null}
      {!api && !failure ? <Spinner label={t("shell.loading")} /> : null}
      {api ? (
        <div class={route ? "reference reference-open" : "reference"}>
          <nav class="reference-list" aria-label={t("reference.operations")}>
            <Field label={t("reference.search")} hideLabel>
              <input
                type="search"
                placeholder={t("reference.search")}
                value={search}
                onInput={(event) => setSearch(event.currentTarget.value)}
              />
            </Field>
            <RouteList routes={api.routes} search={search} shown={shown} />
          </nav>
          <div class="reference-detail">
            {route ? <RouteView key={route.operation.operationId} api={api} route={route} /> : <Introduction api={api} />}
          </div>
        </div>
      ) : null}
    </>
  );
}

function RouteList({ routes, search, shown }: { routes: readonly Route[]; search: string; shown: string | null }) {
  const groups = useMemo(() => {
    const wanted = search.trim().toLowerCase();
    const found = new Map<string, Route[]>();
    for (const route of routes) {
      const { method, path, tag, operation } = route;
      const text = `${method} ${path} ${tag} ${operation.summary ?? ""}`.toLowerCase();
      if (!wanted.split(/\s+/).every((word) => text.includes(word))) continue;
      found.set(tag, [...(found.get(tag) ?? []), route]);
    }
    return [...found];
  }, [routes, search]);
  if (!groups.length) return <p class="soft">{t("reference.none")}</p>;
  return (
    <>
      {groups.map(([tag, members]) => (
        <section key={tag}>
          <h2>{tag}</h2>
          <ul>
            {members.map(({ method, path, operation }) => (
              <li key={operation.operationId}>
                <a
                  href={href(`/reference?operation=${encodeURIComponent(operation.operationId)}`)}
                  aria-current={operation.operationId === shown ? "page" : undefined}
                >
                  <span class={`method method-${method.toLowerCase()}`}>{method}</span>
                  <span>
                    {operation.summary}
                    <span class="reference-path">{path}</span>
                  </span>
                </a>
              </li>
            ))}
          </ul>
        </section>
      ))}
    </>
  );
}

function Introduction({ api }: { api: ApiDescription }) {
  return (
    <div class="card stack">
      <p>{t("reference.intro", { version: api.version })}</p>
      <dl class="reference-facts">
        <dt>{t("reference.base")}</dt>
        <dd>
          <code>{window.location.origin + href("/v1")}</code>
        </dd>
        <dt>{t("reference.authentication")}</dt>
        <dd>
          <code>Authorization: Bearer rag_…</code>
        </dd>
      </dl>
    </div>
  );
}

function RouteView({ api, route }: { api: ApiDescription; route: Route }) {
  const { method, path, operation } = route;
  const parameters = operation.parameters ?? [];
  const bodies = Object.entries(operation.requestBody?.content ?? {});
  return (
    <article class="stack">
      <a class="reference-back" href={href("/reference")}>
        {t("reference.back")}
      </a>
      <h2>{operation.summary}</h2>
      <p class="reference-route">
        <span class={`method method-${method.toLowerCase()}`}>{method}</span> <code>{path}</code>
      </p>
      {operation.description
        ? plain(operation.description)
            .split("\n\n")
            .map((text, index) => <p key={index}>{text}</p>)
        : null}
      {parameters.length ? (
        <section>
          <h3>{t("reference.parameters")}</h3>
          <ul class="properties">
            {parameters.map((parameter) => (
              <li key={`${parameter.in}:${parameter.name}`}>
                <code>{parameter.name}</code>{" "}
                <span class="soft small">
                  {parameter.in} · {parameter.schema ? typeText(api, parameter.schema) : "string"}
                </span>
                {parameter.required ? <span class="required small"> {t("reference.required")}</span> : null}
                {parameter.description ? <div class="small">{plain(parameter.description)}</div> : null}
              </li>
            ))}
          </ul>
        </section>
      ) : null}
      {bodies.map(([type, { schema }]) => (
        <section key={type}>
          <h3>
            {t("reference.body")} <span class="soft small">{type}</span>
          </h3>
          {schema ? <SchemaView api={api} schema={schema} /> : null}
        </section>
      ))}
      <section>
        <h3>{t("reference.responses")}</h3>
        <Responses api={api} route={route} />
      </section>
      <TryIt api={api} route={route} />
    </article>
  );
}

function Responses({ api, route }: { api: ApiDescription; route: Route }) {
  return (
    <ul class="properties">
      {Object.entries(route.operation.responses).map(([status, { description, content }]) => (
        <li key={status}>
          <code>{status}</code> {description ? plain(description) : ""}
          {status < "300"
            ? Object.entries(content ?? {}).map(([type, { schema }]) =>
                schema ? (
                  <details key={type}>
                    <summary class="small">{type}</summary>
                    <SchemaView api={api} schema={schema} />
                  </details>
                ) : null,
              )
            : null}
        </li>
      ))}
    </ul>
  );
}
