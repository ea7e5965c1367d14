import { z } from 'zod';
import { version } from '../telemetry/version.js';
import { type Route, ROUTES } from './routes.js';
import { PROBLEM } from './shapes.js';

type Json = Readonly<Record<string, unknown>>;

/** Returns the OpenAPI 3.1 document of what is below /v1. */
export function openApi(): Json {
  const paths: Record<string, Record<string, Json>> = {};
  for (const route of ROUTES) (paths[route.path] ??= {})[route.method] = operation(route);
  return {
    openapi: '3.1.0',
    info: {
      title: 'Feed',
      version: version(),
      description: 'A durable, resumable event feed. docs/http.md says more of each path.',
    },
    paths,
    components: {
      schemas: { Problem: schemaOf(PROBLEM, 'output') },
      securitySchemes: {
        token: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' },
        session: {
          type: 'apiKey',
          in: 'cookie',
          name: '__Host-feed-session',
          description: 'Over plain text, its name is feed-session.',
        },
      },
    },
    // Also none, where the service asks nobody who they are.
    security: [{}, { token: [] }, { session: [] }],
  };
}

function operation({ name, summary, path, query, body, answer }: Route): Json {
  return {
    operationId: name,
    summary,
    parameters: [...pathParameters(path), ...queryParameters(query)],
    ...(body && { requestBody: { required: true, content: contentOf(body, 'input') } }),
    responses: {
      [answer.status]: { description: 'Served.', content: contentOf(answer.content, 'output') },
      default: {
        description: 'Not served: `reason` says why.',
        content: {
          'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } },
        },
      },
    },
  };
}

const pathParameters = (path: string): Json[] =>
  Array.from(path.matchAll(/\{(\w+)\}/g), ([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string' },
  }));

/** A value that is there several times is an array, which is OpenAPI's usual way as well. */
const queryParameters = (query: z.ZodObject): Json[] =>
  Object.entries(query.shape).map(([name, type]) => {
    const { description, ...schema } = schemaOf(type as z.ZodType, 'input');
    return { name, in: 'query', required: schema.minItems === 1, description, schema };
  });

const contentOf = (
  content: Readonly<Record<string, z.ZodType | undefined>>,
  io: 'input' | 'output',
): Json =>
  Object.fromEntries(
    Object.entries(content).map(([type, shape]) => [
      type,
      { schema: shape ? schemaOf(shape, io) : { type: 'string' } },
    ]),
  );

function schemaOf(type: z.ZodType, io: 'input' | 'output'): Json {
  const { $schema: _, ...schema } = z.toJSONSchema(type, { io });
  return schema;
}
