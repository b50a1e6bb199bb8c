// A CDS Hooks client built on @medplum/core: discovers the services, builds a request, calls.
//
//   node --experimental-websocket call.mjs SERVICE_BASE_URL DEMO_REQUEST.json
//
// Its FHIR server is the demo request's own prefetch, answered by key; what it sends to the service
// goes over the network. Prints one JSON document: what was offered, sent and answered.
import { readFileSync } from 'node:fs';
import { MedplumClient, buildCdsRequest } from '@medplum/core';

const [base, file] = process.argv.slice(2);
const demo = JSON.parse(readFileSync(file, 'utf8'));
const FHIR = 'http://fhir.invalid/';
const UNRESOLVED = 'function';
const attempts = [];

let answers = new Map();

async function fetchOrAnswer(url, options) {
  if (String(url).startsWith(FHIR)) {
    const found = answers.get(String(url).slice(`${FHIR}fhir/R4/`.length));
    const body = JSON.stringify(found ?? { resourceType: 'OperationOutcome', issue: [] });
    const headers = { 'content-type': 'application/fhir+json' };
    return new Response(body, { status: found ? 200 : 404, headers });
  }
  const answer = await fetch(url, options);
  if (options?.method === 'POST') {
    attempts.push({ status: answer.status, hookInstance: JSON.parse(options.body).hookInstance });
  }
  return answer;
}

const client = new MedplumClient({
  baseUrl: FHIR,
  cdsServicesUrl: `${base}/cds-services/`,
  fetch: fetchOrAnswer,
  cacheTime: 0,
});

const { services } = await client.getCdsServices();
const service = services.find((s) => s.id === 'readmission-30d' && s.hook === 'patient-view');
const { patientId } = demo.context;
const asked = Object.entries(service.prefetch).map(([key, template]) => [
  template.replace('{{context.patientId}}', patientId),
  demo.prefetch[key],
]);
answers = new Map(asked);

// One query that this client cannot resolve: it has no encounter in its context
const templates = {
  ...service.prefetch,
  [UNRESOLVED]: 'Observation?encounter={{context.encounterId}}',
};
const user = { resourceType: 'Practitioner', id: 'demo' };
const context = { userId: 'Practitioner/demo', patientId };
const request = await buildCdsRequest(client, user, { ...service, prefetch: templates }, context);
request.extension = { 'dk.varsel.as-of': 'latest' };

const response = await client.callCdsService(service.id, request);
console.log(JSON.stringify({ services, request, attempts, response }));
