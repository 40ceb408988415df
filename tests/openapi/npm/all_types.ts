// What the generated types must know, and what they must not let through. Checked, never run.

import createClient from "openapi-fetch";
import type { components, paths } from "./all_types_api.d.ts";

const api = createClient<paths>({ baseUrl: "http://127.0.0.1:8000" });

export async function plain() {
  const { data, error, response } = await api.GET("/api/people/{id}", { params: { path: { id: 7 } } });
  if (error) return `${error.error.message} ${response.headers.get("X-Request-Id")}`;
  const year: number | undefined = data.year;
  return `${data.title} ${year}`;
}

export async function classes() {
  const home: components["schemas"]["Address"] = { street: "Rue de la Paix 1", zip: "75002", floor: 0 };
  const person = { name: "Ada", home, height: 1.7, friends: [] };
  const { data } = await api.POST("/api/people", {
    body: { person, shape: { kind: "circle", radius: 1 }, tags: [], pair: [1, "one"], anything: null },
  });
  return data?.friends?.map((friend) => friend.home.zip);
}

export function refused() {
  // @ts-expect-error - a path needs its parameter
  api.GET("/api/people/{id}", {});
  // @ts-expect-error - which is a number
  api.GET("/api/people/{id}", { params: { path: { id: "seven" } } });
  // @ts-expect-error - text and whole are needed
  api.GET("/api/scalars", { params: { query: {} } });
  // @ts-expect-error - there is no such color
  api.GET("/api/scalars", { params: { query: { text: "tea", whole: 1, color: "blue" } } });
  // @ts-expect-error - nothing answers here
  api.GET("/api/nothing", {});
}

export function told(event: components["schemas"]["StreamTypedEvent"]) {
  switch (event.event) {
    case "token":
      return event.data;
    case "tick":
      return JSON.parse(event.data) as number | null;
    case "done":
      return (JSON.parse(event.data) as components["schemas"]["Done"]).total;
    case "error":
      return (JSON.parse(event.data) as components["schemas"]["ErrorPayload"]).message;
    default: {
      const nothing: never = event; // the union is whole
      return nothing;
    }
  }
}
