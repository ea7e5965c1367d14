import { computed, signal } from '@preact/signals';

/** Where the reader is. The address's hash says it, so that a link or a reload comes back to the same place. */
export type Route =
  | { readonly page: 'overview' }
  | { readonly page: 'topics' }
  | { readonly page: 'topic'; readonly topic: string }
  | { readonly page: 'streams' };

const hash = signal(location.hash);
addEventListener('hashchange', () => (hash.value = location.hash));

export const route = computed(() => parse(hash.value));

/** Returns the address of a place: `#/topics/orders.created` is the page of the topic `orders.created`. */
export function link(to: Route): string {
  if (to.page === 'overview') return '#/';
  return to.page === 'topic' ? `#/topics/${encodeURIComponent(to.topic)}` : `#/${to.page}`;
}

export function go(to: Route): void {
  location.hash = link(to);
}

/** Returns the place of an address. An address that is none leads to the overview. */
export function parse(address: string): Route {
  const [, page, topic] = address.split('/');
  if (page === 'streams') return { page };
  if (page !== 'topics') return { page: 'overview' };
  return topic ? { page: 'topic', topic: decoded(topic) } : { page };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // A hash that somebody typed: `100%` is no encoded text.
  }
}
