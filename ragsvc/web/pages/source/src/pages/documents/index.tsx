import { useEffect, useState } from "preact/hooks";
import { hasScope } from "../../api/session";
import { Button } from "../../components/button";
import { Field } from "../../components/field";
import { Notice } from "../../components/notice";
import { PageHeader } from "../../components/page_header";
import { Tabs } from "../../components/tabs";
import { navigate, query } from "../../shell/router";
import { t } from "../../texts";
import type { PageProps } from "..";
import { DocumentDetail } from "./detail";
import { CollectionsDialog } from "./dialogs";
import "./documents.css";
import { DocumentList, showsSearch, useCollections } from "./list";
import { connected } from "./live";
import { PassageSearch } from "./search";
import { AddButtons, DropTarget, UploadPanel } from "./upload_panel";

export default function DocumentsPage({ params }: PageProps) {
  const id = params["id"];
  return id === undefined ? <AllDocuments /> : <DocumentDetail id={id} />;
}

function AllDocuments() {
  const { collections, reload } = useCollections();
  const [managing, setManaging] = useState(false);
  const [chosen, setChosen] = useState("default");
  const mayWrite = hasScope("documents.write");
  const filtered = query.value.get("collection");
  const target = filtered ?? chosen;
  const names = new Set(["default", ...collections.map((collection) => collection.name), target]);
  useEffect(() => {
    if (filtered) setChosen(filtered);
  }, [filtered]);

  return (
    <>
      <PageHeader title={t("nav.documents")}>
        <Button
          icon="folder"
          onClick={() => {
            reload(); // the numbers of documents may have changed
            setManaging(true);
          }}
        >
          {t("documents.collections")}
        </Button>
      </PageHeader>
      <div class="stack">
        {connected.value ? null : <Notice kind="warning">{t("documents.reconnecting")}</Notice>}
        {mayWrite ? (
          <div class="card add">
            <AddButtons collection={target} />
            <Field label={t("documents.into")}>
              <select
                value={target}
                disabled={filtered !== null}
                onChange={(event) => setChosen(event.currentTarget.value)}
              >
                {[...names].map((name) => (
                  <option key={name} value={name}>
                    {name}
                  </option>
                ))}
              </select>
            </Field>
            <p class="soft small">{t("documents.drop_hint")}</p>
            <DropTarget collection={target} />
          </div>
        ) : (
          <Notice>{t("documents.no_write")}</Notice>
        )}
        {mayWrite ? <UploadPanel /> : null}
        <Tabs
          label={t("documents.tabs")}
          tabs={[
            { id: "list", title: t("documents.tab.list") },
            ...(hasScope("search") ? [{ id: "search", title: t("documents.tab.search") }] : []),
          ]}
          selected={showsSearch() ? "search" : "list"}
          onSelect={(tab) => navigate(tab === "search" ? "/documents?view=search" : "/documents", { replace: true })}
        >
          {showsSearch() ? (
            <PassageSearch collections={collections} />
          ) : (
            <DocumentList collections={collections} mayWrite={mayWrite} onCollectionsChanged={reload} />
          )}
        </Tabs>
      </div>
      <CollectionsDialog
        open={managing}
        collections={collections}
        mayWrite={mayWrite}
        onChanged={(created) => {
          reload();
          if (created) setChosen(created);
        }}
        onClose={() => setManaging(false)}
      />
    </>
  );
}
