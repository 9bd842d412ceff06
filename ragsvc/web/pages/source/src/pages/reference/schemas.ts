import type { ApiDescription, Schema } from "../../api/openapi";

/** Nested schemas are followed so far in texts and examples; deeper ones can be opened. */
const MAX_DEPTH = 6;

export function nameOf(schema: Schema): string {
  return schema.$ref?.split("/").pop() ?? schema.title ?? "object";
}

function alternatives(schema: Schema): Schema[] | undefined {
  return schema.anyOf ?? schema.oneOf;
}

/** The type of a value in a few words, such as `array of string` or `integer or null`. */
export function typeText(api: ApiDescription, schema: Schema, depth = 0): string {
  if (schema.$ref) {
    const target = api.resolve(schema);
    return target.enum || (target.type && target.type !== "object") ? typeText(api, target, depth + 1) : nameOf(schema);
  }
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const choices = alternatives(schema);
  if (choices) return [...new Set(choices.map((choice) => typeText(api, choice, depth + 1)))].join(" or ");
  if (schema.allOf?.[0]) return typeText(api, schema.allOf[0], depth + 1);
  if (schema.items && depth < MAX_DEPTH) return `array of ${typeText(api, schema.items, depth + 1)}`;
  const type = Array.isArray(schema.type) ? schema.type.join(" or ") : (schema.type ?? "any");
  return schema.format ? `${type} (${schema.format})` : type;
}

/** The limits of a value, such as `1 to 100` or `at most 512 characters`. */
export function limitsOf(schema: Schema): string[] {
  const limits: string[] = [];
  const least = schema.minimum ?? schema.exclusiveMinimum;
  const most = schema.maximum ?? schema.exclusiveMaximum;
  if (least !== undefined) limits.push(`${schema.minimum === undefined ? ">" : "≥"} ${least}`);
  if (most !== undefined) limits.push(`${schema.maximum === undefined ? "<" : "≤"} ${most}`);
  if (schema.minLength !== undefined || schema.maxLength !== undefined) {
    limits.push(`${schema.minLength ?? 0}…${schema.maxLength ?? "∞"} characters`);
  }
  if (schema.minItems !== undefined || schema.maxItems !== undefined) {
    limits.push(`${schema.minItems ?? 0}…${schema.maxItems ?? "∞"} items`);
  }
  return limits;
}

/** The object whose properties describe a value: that of an array's items, or of the first alternative that is one. */
export function objectOf(api: ApiDescription, schema: Schema, depth = 0): Schema | null {
  if (depth > MAX_DEPTH) return null;
  const found = api.resolve(schema);
  if (found.properties) return found;
  for (const inner of [...(alternatives(found) ?? []), ...(found.allOf ?? []), ...(found.items ? [found.items] : [])]) {
    const object = objectOf(api, inner, depth + 1);
    if (object) return object;
  }
  return null;
}

/** A value that fits a schema: its first example, its default, or the least that is required. */
export function exampleOf(api: ApiDescription, schema: Schema, depth = 0): unknown {
  const found = api.resolve(schema);
  if (found.examples?.length) return found.examples[0];
  if (found.const !== undefined) return found.const;
  if (found.default !== undefined) return found.default;
  if (found.enum) return found.enum[0];
  if (depth > MAX_DEPTH) return null;
  const inner = found.allOf?.[0] ?? alternatives(found)?.[0];
  if (inner) return exampleOf(api, inner, depth + 1);
  const type = Array.isArray(found.type) ? found.type[0] : found.type;
  if (found.properties || type === "object") {
    const required = new Set(found.required);
    const shown = Object.entries(found.properties ?? {}).filter(
      ([name, property]) => required.has(name) || api.resolve(property).examples?.length,
    );
    return Object.fromEntries(shown.map(([name, property]) => [name, exampleOf(api, property, depth + 1)]));
  }
  if (type === "array") return found.items && found.minItems ? [exampleOf(api, found.items, depth + 1)] : [];
  if (type === "integer" || type === "number") return found.minimum ?? 0;
  if (type === "boolean") return false;
  return type === "string" ? "" : null;
}
