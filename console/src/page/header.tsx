import { signOut } from '../api/session.ts';
import { session } from '../api/state.ts';
import { link, type Route, route } from './route.ts';
import { type Theme, theme } from './theme.ts';

const PAGES: readonly { name: string; to: Route; has: readonly Route['page'][] }[] = [
  { name: 'Overview', to: { page: 'overview' }, has: ['overview'] },
  { name: 'Topics', to: { page: 'topics' }, has: ['topics', 'topic'] },
  { name: 'Streams', to: { page: 'streams' }, has: ['streams'] },
];

export function Header() {
  return (
    <header class="header">
      <a class="brand" aria-label="Feed" href={link({ page: 'overview' })}>
        <img src="./icon.svg" alt="" width="20" height="20" />
        <span class="brand-name">Feed</span>
      </a>
      <nav aria-label="Pages">
        {PAGES.map(({ name, to, has }) => (
          <a
            key={name}
            href={link(to)}
            aria-current={has.includes(route.value.page) ? 'page' : undefined}
          >
            {name}
          </a>
        ))}
      </nav>
      <span class="space" />
      <Caller />
      <ThemeSwitch />
    </header>
  );
}

/** Who the page is for, where the server asks that. Only a token can be given back: a certificate is the browser's. */
function Caller() {
  const { principal, expiresAt } = session.value ?? {};
  if (!principal) return null;
  // If the server is away, the page says so already.
  const leave = (): void => void signOut().catch(() => undefined);
  return (
    <span class="caller">
      <span title="The name that the server knows you by">{principal}</span>
      {expiresAt && (
        <button type="button" class="quiet" onClick={leave}>
          Sign out
        </button>
      )}
    </span>
  );
}

function ThemeSwitch() {
  return (
    <select
      class="quiet"
      aria-label="Colours"
      value={theme.value}
      onChange={(event) => (theme.value = event.currentTarget.value as Theme)}
    >
      <option value="system">System</option>
      <option value="light">Light</option>
      <option value="dark">Dark</option>
    </select>
  );
}
