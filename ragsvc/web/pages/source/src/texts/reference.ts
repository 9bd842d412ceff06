import type { Texts } from "./catalogue";

/** Keys begin with `reference.`. The descriptions of routes come from the service, in English. */
export const reference = {
  "reference.intro": {
    en: "All routes of this service, version {version}. Choose one to read about it and to try it with the key that is signed in.",
    de: "Alle Routen dieses Dienstes, Version {version}. Wählen Sie eine aus, um sie zu lesen und mit dem angemeldeten Schlüssel auszuprobieren.",
  },
  "reference.base": { en: "Base URL for OpenAI’s SDKs", de: "Basis-URL für die SDKs von OpenAI" },
  "reference.authentication": { en: "Authentication of programs", de: "Anmeldung von Programmen" },
  "reference.download": { en: "OpenAPI document", de: "OpenAPI-Dokument" },
  "reference.operations": { en: "Routes", de: "Routen" },
  "reference.search": { en: "Search routes", de: "Routen durchsuchen" },
  "reference.none": { en: "No route has these words.", de: "Keine Route enthält diese Wörter." },
  "reference.back": { en: "All routes", de: "Alle Routen" },
  "reference.parameters": { en: "Parameters", de: "Parameter" },
  "reference.body": { en: "Body", de: "Inhalt" },
  "reference.responses": { en: "Responses", de: "Antworten" },
  "reference.required": { en: "required", de: "erforderlich" },
  "reference.default": { en: "default {value}", de: "Standard {value}" },
  "reference.fields": { en: "Fields of {name}", de: "Felder von {name}" },
  "reference.try": { en: "Try it", de: "Ausprobieren" },
  "reference.try.read": { en: "Sent with the key that is signed in.", de: "Wird mit dem angemeldeten Schlüssel gesendet." },
  "reference.try.write": {
    en: "Sent with the key that is signed in. It may change real data.",
    de: "Wird mit dem angemeldeten Schlüssel gesendet und kann echte Daten ändern.",
  },
  "reference.send": { en: "Send {method}", de: "{method} senden" },
  "reference.stop": { en: "Stop", de: "Anhalten" },
  "reference.binary": { en: "{size} of binary data", de: "{size} Binärdaten" },
} satisfies Texts;
