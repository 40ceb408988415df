// From the document to what can be asked: its operations, the fields of each, and the request that filled fields make.

const METHODS = ["get", "post", "put", "patch", "delete", "options"];

export class FieldError extends Error {
  constructor(field, message) {
    super(`${field.name}: ${message}`);
    this.field = field;
  }
}

export function operationsOf(described) {
  const found = [];
  for (const [path, item] of Object.entries(described.paths)) {
    for (const method of METHODS.filter((each) => each in item)) {
      const told = item[method];
      const streams = "text/event-stream" in (resolve(described, told.responses["200"]).content ?? {});
      found.push({ path, method, streams, ...told, fields: fieldsOf(described, told) });
    }
  }
  return found;
}

function fieldsOf(described, told) {
  const fields = (told.parameters ?? []).map((each) => {
    const parameter = resolve(described, each);
    const media = parameter.content?.["application/json"];
    const schema = media?.schema ?? parameter.schema;
    return field(described, parameter.name, parameter.in, schema, parameter.required, parameter.description, media);
  });
  const content = told.requestBody?.content ?? {};
  const form = content["multipart/form-data"];
  const schema = resolve(described, (form ?? content["application/json"])?.schema ?? {});
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    fields.push(field(described, name, form ? "form" : "body", property, schema.required?.includes(name)));
  }
  return fields;
}

function field(described, name, place, schema, required = false, description = "", isJson = false) {
  const whole = resolve(described, schema);
  const some = (whole.anyOf ?? []).filter((each) => each.type !== "null");
  const bare = some.length === 1 ? { ...whole, ...resolve(described, some[0]) } : whole;
  const kind = isJson ? "json" : kindOf(bare);
  const given = whole.examples?.[0] ?? bare.examples?.[0];
  return {
    name, place, kind, required,
    description: description || whole.description || bare.description || "",
    choices: bare.type === "boolean" ? [true, false] : "const" in bare ? [bare.const] : (bare.enum ?? []),
    several: bare.type === "array",
    secret: bare.format === "password",
    example: given === undefined && kind === "json" && required ? sampleOf(described, whole) : given,
    hint: whole.default ?? bare.default ?? (kind === "text" ? bare.format : undefined),
  };
}

function kindOf(schema) {
  if (schema.format === "binary" || schema.items?.format === "binary") return "file";
  if (schema.enum || "const" in schema || schema.type === "boolean") return "choice";
  if (schema.type === "integer" || schema.type === "number") return "number";
  return schema.type === "string" ? "text" : "json";
}

// A value of a schema, with what it must have: something to begin with.
function sampleOf(described, schema, depth = 0) {
  const whole = resolve(described, schema);
  const told = whole.examples?.[0] ?? whole.default ?? whole.const ?? whole.enum?.[0];
  if (told !== undefined) return told;
  const some = whole.anyOf ?? whole.oneOf;
  if (some) return sampleOf(described, some[0], depth);
  switch (whole.type) {
    case "object": {
      const names = depth < 5 ? (whole.required ?? []) : [];
      return Object.fromEntries(names.map((name) => [name, sampleOf(described, whole.properties[name], depth + 1)]));
    }
    case "array": return (whole.prefixItems ?? []).map((item) => sampleOf(described, item, depth + 1));
    case "integer":
    case "number": return whole.minimum ?? (whole.exclusiveMinimum ?? -1) + 1;
    case "boolean": return false;
    default: return whole.type === "string" ? "" : null;
  }
}

function resolve(described, value) {
  let found = value;
  while (found?.$ref) {
    const target = found.$ref.split("/").slice(1).reduce((at, key) => at[key], described);
    const { $ref, ...rest } = found;
    found = { ...target, ...rest };
  }
  return found;
}

// `read` gives what is in a field: a text, or a list of files.
export function requestOf(described, operation, read, base) {
  let path = operation.path;
  const query = new URLSearchParams();
  const headers = {};
  const form = new FormData();
  const body = {};
  for (const each of operation.fields) {
    const given = read(each);
    if (given.length === 0) {
      if (each.place === "path") throw new FieldError(each, "is part of the path, and needed");
      continue;
    }
    if (each.place === "path") path = path.replace(`{${each.name}}`, encodeURIComponent(given));
    else if (each.place === "header") headers[each.name] = given;
    else if (each.place === "body") body[each.name] = typed(each, given);
    else append(each.place === "query" ? query : form, each, given);
  }
  const url = new URL(described.servers?.[0]?.url ?? "/", base);
  url.pathname = url.pathname.replace(/\/$/, "") + path;
  url.search = query.toString();
  const init = { method: operation.method.toUpperCase(), headers };
  if (operation.fields.some((each) => each.place === "form")) init.body = form;
  else if (operation.requestBody) {
    init.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  return [url, init];
}

function append(to, each, given) {
  if (each.kind === "file") [...given].forEach((file) => to.append(each.name, file));
  else if (each.several) {
    const items = typed(each, given);
    if (!Array.isArray(items)) throw new FieldError(each, 'is a list: write ["a", "b"]');
    items.forEach((item) => to.append(each.name, typeof item === "string" ? item : JSON.stringify(item)));
  } else to.append(each.name, each.kind === "json" ? JSON.stringify(typed(each, given)) : given);
}

function typed(each, given) {
  if (each.kind === "text") return given;
  if (each.kind === "choice") return each.choices.find((choice) => String(choice) === given);
  try {
    return JSON.parse(given);
  } catch (error) {
    throw new FieldError(each, each.kind === "number" ? "is a number" : `is JSON: ${error.message}`);
  }
}
