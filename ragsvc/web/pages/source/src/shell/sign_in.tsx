import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "../api/errors";
import { href } from "../api/prefix";
import { ended, session, signIn } from "../api/session";
import { Button } from "../components/button";
import { Field } from "../components/field";
import { Notice } from "../components/notice";
import { PageHeader } from "../components/page_header";
import { Spinner } from "../components/spinner";
import { errorText } from "../components/toast";
import { t } from "../texts";
import { homePath } from "./page_view";
import { fragment, navigate, path } from "./router";

/** Signs in with a key, or with the code of a link. The key is only in the field, which is emptied. */
export function SignIn() {
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const code = new URLSearchParams(fragment.value).get("code");
  const [failed, setFailed] = useState("");
  // a link of somebody else would bring what follows into their documents, so nobody is signed in anew without being asked
  const [agreed, setAgreed] = useState(!session.value);
  const linked = code !== null && code !== failed;

  useEffect(() => {
    // the code goes out of the address and the history; the router keeps it, so that this view stays until the answer
    if (code) window.history.replaceState(null, "", href("/sign-in"));
  }, [code]);
  useEffect(() => {
    if (!code || !agreed) return;
    signIn({ code }).then(
      () => navigate(homePath(), { replace: true }),
      (reason: unknown) => {
        const used = reason instanceof ApiError && reason.status === 401;
        setError(used ? t("sign_in.link_failed") : errorText(reason));
        setFailed(code);
      },
    );
  }, [code, agreed]);

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
        {linked && !agreed ? (
          <div class="stack">
            <p>{t("sign_in.link_opened", { label: session.value?.key.label ?? "" })}</p>
            <div class="row">
              <Button kind="primary" onClick={() => setAgreed(true)}>
                {t("sign_in.link_use")}
              </Button>
              <Button onClick={() => navigate(homePath(), { replace: true })}>{t("sign_in.link_ignore")}</Button>
            </div>
          </div>
        ) : linked ? (
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
