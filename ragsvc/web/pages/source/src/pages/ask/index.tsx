import { useEffect, useRef, useState } from "preact/hooks";
import type { PageProps } from "..";
import { href } from "../../api/prefix";
import { hasScope } from "../../api/session";
import { Button, IconButton } from "../../components/button";
import { Dialog } from "../../components/dialog";
import { PageHeader } from "../../components/page_header";
import { Spinner } from "../../components/spinner";
import { toastError } from "../../components/toast";
import { navigate, query } from "../../shell/router";
import { t, tn } from "../../texts";
import "./ask.css";
import { Composer } from "./composer";
import { asMarkdown, download, fileName } from "./export";
import { History } from "./history";
import { SourcePanel } from "./source_panel";
import {
  announced,
  chooseDocument,
  collections,
  conversationId,
  conversationTitle,
  hasDocuments,
  isBusy,
  newConversation,
  openConversation,
  opening,
  readyDocuments,
  shownSource,
  start,
  turns,
} from "./state";
import { TurnView } from "./turn_view";

export default function AskPage(_: PageProps) {
  const [listing, setListing] = useState(false);
  const wanted = query.value.get("conversation");
  const document = query.value.get("document");
  useEffect(() => {
    void start();
  }, []);
  useEffect(() => {
    if (document) chooseDocument(document).catch(toastError);
    else if (wanted) void openConversation(wanted);
    else if (conversationId.value && !isBusy.value) newConversation();
  }, [wanted, document]);
  const source = shownSource.value;
  return (
    <div class={source ? "ask ask-beside" : "ask"}>
      <aside class="ask-history" aria-label={t("ask.history")}>
        <Button icon="plus" onClick={begin}>
          {t("ask.new")}
        </Button>
        <History />
      </aside>
      <div class="ask-main">
        <PageHeader title={conversationTitle.value || t("nav.ask")}>
          <Button class="ask-narrow" kind="quiet" icon="history" onClick={() => setListing(true)}>
            <span class="ask-narrow-text">{t("ask.history")}</span>
          </Button>
          {turns.value.length ? <Exports /> : null}
        </PageHeader>
        <Conversation />
        <Composer disabled={!hasDocuments.value} />
        <p class="visually-hidden" role="status">
          {announced.value}
        </p>
      </div>
      {source ? <SourcePanel source={source} /> : null}
      <Dialog title={t("ask.history")} open={listing} onClose={() => setListing(false)}>
        <div class="stack">
          <Button
            icon="plus"
            onClick={() => {
              setListing(false);
              begin();
            }}
          >
            {t("ask.new")}
          </Button>
          <History onOpen={() => setListing(false)} />
        </div>
      </Dialog>
    </div>
  );
}

function begin(): void {
  newConversation();
  navigate("/ask");
}

function Exports() {
  const title = conversationTitle.value;
  const markdown = (): void =>
    download(fileName(title, "md"), asMarkdown(title, turns.value), "text/markdown;charset=utf-8");
  return (
    <>
      <IconButton icon="download" label={`${t("ask.export")}: ${t("ask.export.markdown")}`} disabled={isBusy.value} onClick={markdown} />
      <IconButton icon="print" label={`${t("ask.export")}: ${t("ask.export.pdf")}`} disabled={isBusy.value} onClick={() => window.print()} />
    </>
  );
}

function Conversation() {
  const list = useRef<HTMLDivElement>(null);
  const count = turns.value.length;
  useEffect(() => {
    if (count > 1) list.current?.lastElementChild?.scrollIntoView({ block: "start" }); // the question, then its answer
  }, [count, opening.value]);
  if (opening.value) return <Spinner label={t("shell.loading")} />;
  if (!count) return hasDocuments.value ? <Welcome /> : <NoDocuments />;
  return (
    <div class="turns" ref={list}>
      {turns.value.map((turn, index) => (
        <TurnView key={turn.key} turn={turn} last={index === count - 1} />
      ))}
    </div>
  );
}

function Welcome() {
  const count = readyDocuments.value;
  const known = count ? tn(count, "ask.welcome.one", "ask.welcome.other") : t("ask.welcome.reading");
  const text = collections.value === null ? t("ask.welcome.unknown") : known;
  return (
    <div class="ask-empty">
      <h2>{t("ask.welcome")}</h2>
      <p class="soft">{text}</p>
    </div>
  );
}

function NoDocuments() {
  return (
    <div class="ask-empty">
      <h2>{t("ask.no_documents")}</h2>
      <p class="soft">{t("ask.no_documents.text")}</p>
      {hasScope("documents.write") ? (
        <a class="button button-primary" href={href("/documents")}>
          {t("ask.no_documents.action")}
        </a>
      ) : null}
    </div>
  );
}
