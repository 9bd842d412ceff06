export const languages = ["en", "de"] as const;
export type Language = (typeof languages)[number];
export type Texts = Record<string, Record<Language, string>>;
