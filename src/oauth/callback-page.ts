import { createHash } from 'node:crypto'
import { html, raw } from 'hono/html'

const STYLE =
  'body{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:20vh auto;padding:0 1rem}h1{font-size:1.4rem}'

/** Nothing on the page runs, loads, or tells another site where it came from. */
export const PAGE_HEADERS = {
  'content-type': 'text/html; charset=utf-8',
  'content-security-policy': `default-src 'none'; style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'; frame-ancestors 'none'`,
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
}

/** What the browser shows at the end of a login; both texts are escaped. */
export const callbackPage = (title: string, text: string): string =>
  String(html`<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>${title}</title><style>${raw(STYLE)}</style></head>
<body><h1>${title}</h1><p>${text}</p></body>
</html>
`)
