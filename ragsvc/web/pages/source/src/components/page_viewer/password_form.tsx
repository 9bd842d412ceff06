import { useState } from "preact/hooks";
import { t } from "../../texts";
import { Button } from "../button";
import { Field } from "../field";

/** Asks for the password of a protected file. */
export function PasswordForm({ wrong, onPassword }: { wrong: boolean; onPassword: (password: string) => void }) {
  const [password, setPassword] = useState("");
  return (
    <form
      class="page-viewer-notice stack"
      onSubmit={(event) => {
        event.preventDefault();
        if (password) onPassword(password);
      }}
    >
      <p>{t("viewer.password.text")}</p>
      <Field label={t("viewer.password")} error={wrong ? t("viewer.password.wrong") : undefined}>
        <input
          type="password"
          autocomplete="off"
          value={password}
          onInput={(event: Event) => setPassword((event.currentTarget as HTMLInputElement).value)}
        />
      </Field>
      <div>
        <Button kind="primary" type="submit" disabled={!password}>
          {t("viewer.password.submit")}
        </Button>
      </div>
    </form>
  );
}
