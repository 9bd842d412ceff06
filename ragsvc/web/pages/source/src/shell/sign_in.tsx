import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "../api/errors";
import { ended, session, signIn } from "../api/session";
import { Button } from "../components/button";
import { Field } from "../components/field";
import { Notice } from "../components/notice";
import { PageHeader } from "../components/page_header";
import { Spinner } from "../components/spinner";
import { errorText, toast } from "../components/toast";
import { t } from "../texts";
import { homePath } from "./page_view";
import { fragment, navigate, path } from "./router";

/** Whether the code of a link is being used; until that is known, the pages of a former session are not shown. */
export const linkInUse = signal(false);

/** Signs in with a key, or with the code of a link. The key is only in the field, which is emptied. */
export function SignIn() {
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const [linked, setLinked] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const code = new URLSearchParams(fragment.value).get("code");

  useEffect(() => {
    if (!code) return;
    linkInUse.value = true;
    navigate("/sign-in", { replace: true }); // the code goes out of the address and the history
    setLinked(true);
    signIn({ code })
      .then(
        () => navigate(homePath(), { replace: true }),
        (reason: unknown) => {
          const used = reason instanceof ApiError && reason.status === 401;
          const text = used ? t("sign_in.link_failed") : errorText(reason);
          setError(text);
          if (session.value) toast(text, { kind: "error" }); // the former session goes on
        },
      )
      .finally(() => {
        setLinked(false);
        linkInUse.value = false;
      });
  }, [code]);

  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    const key = input.current?.value.trim() ?? "";
    if (!key) {
      setError(t("sign_in.empty"));
      return;
    }
    setBusy(true);
    setError("");
    try {
      await signIn({ key });
      if (path.value === "/sign-in") navigate(homePath(), { replace: true });
    } catch (reason) {
      const wrong = reason instanceof ApiError && reason.status === 401;
      setError(wrong ? t("sign_in.wrong") : errorText(reason));
      input.current?.focus();
    } finally {
      if (input.current) input.current.value = "";
      setBusy(false);
    }
  };

  return (
    <main class="sign-in" id="content" tabIndex={-1}>
      <div class="card sign-in-card">
        <PageHeader title={t("sign_in.title")} />
        {linked || code ? (
          <Spinner label={t("sign_in.link")} />
        ) : (
          <form class="stack" onSubmit={submit} noValidate>
            {ended.value === "expired" ? <Notice kind="warning">{t("sign_in.expired")}</Notice> : null}
            {ended.value === "signed-out" ? <Notice kind="success">{t("sign_in.signed_out")}</Notice> : null}
            <p class="soft">{t("sign_in.text")}</p>
            <Field label={t("sign_in.key")} hint={t("sign_in.key.hint")} error={error || undefined}>
              <input ref={input} type="password" autoComplete="off" spellcheck={false} autoFocus />
            </Field>
            <Button kind="primary" type="submit" busy={busy}>
              {t("sign_in.submit")}
            </Button>
          </form>
        )}
      </div>
    </main>
  );
}
