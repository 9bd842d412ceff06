import { useState } from "preact/hooks";
import { serviceState, type ServiceState } from "../../api/service";
import { Button } from "../../components/button";
import { Notice } from "../../components/notice";
import { Spinner } from "../../components/spinner";
import { Table, type Column } from "../../components/table";
import { errorText } from "../../components/toast";
import { formatBytes, formatNumber, formatTime, t, tryText } from "../../texts";
import { Facts, type Fact } from "./facts";
import { useAnswer } from "./use_answer";

const EVERY_S = 5;

export function State() {
  const [follow, setFollow] = useState(true);
  const { value, error, at, refresh } = useAnswer(serviceState, follow ? EVERY_S : 0);
  return (
    <>
      <div class="service-bar">
        <Button icon="retry" onClick={refresh}>
          {t("service.refresh")}
        </Button>
        <label class="service-check">
          <input type="checkbox" checked={follow} onChange={(event) => setFollow(event.currentTarget.checked)} />
          {t("service.follow")}
        </label>
        {value ? <span class="service-check soft small">{t("service.read_at", { time: formatTime(at, "time") })}</span> : null}
      </div>
      {error ? <Notice kind="error">{errorText(error)}</Notice> : null}
      {value ? <Cards state={value} /> : error ? null : <Spinner label={t("shell.loading")} />}
    </>
  );
}

function Cards({ state }: { state: ServiceState }) {
  const reasons = Object.entries(state.not_ready).map(([name, reason]) => `${name}: ${reason}`);
  return (
    <>
      {reasons.length > 0 ? (
        <Notice kind="error">{t("service.not_ready", { reasons: reasons.join("; ") })}</Notice>
      ) : (
        <Notice kind="success">{t("service.ready")}</Notice>
      )}
      <div class="service-cards">
        <Facts title={t("service.queue")} facts={queueFacts(state.ingest)} />
        <Facts title={t("service.backups")} facts={backupFacts(state.backups)} />
        <Facts title={t("service.embedding")} facts={embeddingFacts(state.embedding)} />
        <Facts title={t("service.indexes")} facts={indexFacts(state.indexes)} />
        <Facts title={t("service.storage")} facts={storageFacts(state.storage)} />
        <Facts title={t("service.encryption")} facts={encryptionFacts(state.encryption)} />
        <Facts title={t("service.versions")} facts={versionFacts(state)} />
      </div>
      {state.indexes.loaded.length > 0 ? (
        <section class="service-section">
          <h2>{t("service.indexes.list")}</h2>
          <Table
            caption={t("service.indexes.list")}
            columns={indexColumns()}
            rows={state.indexes.loaded}
            rowKey={(row) => `${row.tenant}/${row.collection}`}
          />
        </section>
      ) : null}
    </>
  );
}

function queueFacts(ingest: ServiceState["ingest"]): Fact[] {
  return [
    ...Object.entries(ingest.documents).map(([status, count]): Fact => [tryText(`service.status.${status}`, status), formatNumber(count)]),
    [t("service.queue.waiting"), formatNumber(ingest.waiting)],
    [t("service.queue.running"), formatNumber(ingest.running)],
    [t("service.queue.passages"), formatNumber(ingest.waiting_passages)],
    [t("service.queue.documents"), formatNumber(ingest.documents_last_hour)],
    [t("service.queue.pages"), formatNumber(ingest.pages_last_hour)],
    [t("service.queue.failed"), formatNumber(ingest.failed_last_hour)],
  ];
}

function embeddingFacts(embedding: ServiceState["embedding"]): Fact[] {
  const { change } = embedding;
  const progress = change ? t("service.embedding.progress", { done: change.done, total: change.total }) : t("service.embedding.no_change");
  return [
    [t("service.embedding.model"), embedding.model],
    [t("service.embedding.dimension"), formatNumber(embedding.dimension)],
    [t("service.embedding.runtime"), embedding.runtime],
    [t("service.embedding.fingerprint"), <span class="service-mono">{embedding.fingerprint.slice(0, 16)}…</span>],
    [
      change ? t("service.embedding.change", { model: change.model }) : t("service.embedding.next"),
      change ? (
        <>
          <progress max={change.total || 1} value={change.done} aria-label={progress} />
          <div>{progress}</div>
        </>
      ) : (
        progress
      ),
    ],
  ];
}

function indexFacts(indexes: ServiceState["indexes"]): Fact[] {
  const memory = { used: formatBytes(indexes.memory_bytes), limit: formatBytes(indexes.memory_limit_bytes) };
  return [
    [t("service.indexes.memory"), t("service.of", memory)],
    [t("service.indexes.collections"), formatNumber(indexes.collections)],
    [t("service.indexes.loaded"), formatNumber(indexes.loaded.length)],
  ];
}

function storageFacts(storage: ServiceState["storage"]): Fact[] {
  const disk = { used: formatBytes(storage.disk_free_bytes), limit: formatBytes(storage.disk_size_bytes) };
  return [
    [t("service.storage.folder"), <span class="service-mono">{storage.data_dir}</span>],
    [t("service.storage.database"), formatBytes(storage.database_bytes)],
    [t("service.storage.disk"), t("service.of", disk)],
    [t("service.storage.memory"), storage.memory_bytes === null ? "–" : formatBytes(storage.memory_bytes)],
  ];
}

function encryptionFacts(encryption: ServiceState["encryption"]): Fact[] {
  const counts = (of: Record<string, number>): string =>
    Object.entries(of)
      .map(([mode, count]) => `${mode} ${formatNumber(count)}`)
      .join(", ") || t("service.none");
  return [
    [t("service.encryption.rest"), t(encryption.at_rest ? "service.yes" : "service.no")],
    [t("service.encryption.attestation"), t(`service.encryption.${encryption.attestation}`)],
    [
      t("service.encryption.keys"),
      <ul>
        {encryption.request_keys.map((key) => (
          <li key={key.key_id} class="service-mono">
            {key.accepted_until === null ? key.key_id : t("service.encryption.until", { id: key.key_id, time: formatTime(key.accepted_until) })}
          </li>
        ))}
      </ul>,
    ],
    [t("service.encryption.opened"), counts(encryption.opened)],
    [t("service.encryption.refused"), counts(encryption.refused)],
  ];
}

function backupFacts({ last, upgrade_copies: copies }: ServiceState["backups"]): Fact[] {
  const made = last
    ? t("service.backups.last.value", {
        time: formatTime(last.at),
        documents: last.documents,
        size: formatBytes(last.size_bytes),
        place: last.destination,
      })
    : t("service.backups.never");
  const named = copies.map((copy) => `${copy.name} (${formatBytes(copy.size_bytes)})`).join(", ");
  return [
    [t("service.backups.last"), made],
    [t("service.backups.copies"), named || t("service.none")],
  ];
}

function versionFacts(state: ServiceState): Fact[] {
  return [
    [t("service.versions.release"), state.version],
    [t("service.versions.schema"), state.schema],
    ["Python", state.python],
    [t("service.versions.system"), state.system],
    ...Object.entries(state.packages),
  ];
}

function indexColumns(): Column<ServiceState["indexes"]["loaded"][number]>[] {
  return [
    { id: "tenant", title: t("service.indexes.tenant"), cell: (row) => row.tenant },
    { id: "collection", title: t("service.indexes.collection"), cell: (row) => row.collection },
    { id: "kind", title: t("service.indexes.kind"), cell: (row) => row.kind, wideOnly: true },
    { id: "passages", title: t("service.indexes.passages"), cell: (row) => formatNumber(row.passages), number: true },
    { id: "memory", title: t("service.indexes.memory"), cell: (row) => formatBytes(row.memory_bytes), number: true },
  ];
}
