import { defineConfig } from 'vite';

/** The server that the development server passes /v1 on to. */
const server = 'http://127.0.0.1:8080';

export default defineConfig({
  root: import.meta.dirname,
  // Relative addresses: the page works behind a proxy that adds a prefix to all paths.
  base: './',
  build: {
    // The oldest browsers that know light-dark(), which the colours are written with.
    target: ['chrome123', 'firefox121', 'safari17.5'],
    // The page's policy allows no data: addresses.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    proxy: {
      '/v1': {
        target: server,
        // Feed refuses what other origins send it.
        changeOrigin: true,
        headers: { origin: server },
      },
    },
  },
});
