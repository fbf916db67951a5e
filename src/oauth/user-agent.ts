/** The person who logs in, and whatever they have for a browser: a terminal, a helper of an editor, a test. */
export interface UserAgent {
  /** Shows where to go. */
  show(prompt: LoginPrompt): void
  /** Opens a browser; resolves false when that failed. Absent when there is none to open. */
  readonly open?: ((url: string) => Promise<boolean>) | undefined
  /** What the person pastes, line by line; ends when nothing more can come. Absent when nothing can be pasted. */
  readonly pasted?: AsyncIterable<string> | undefined
  /** Says why a pasted line was not taken; the next one may be. */
  refused(reason: string): void
}

export type LoginPrompt =
  | { readonly kind: 'browser'; readonly url: string; readonly redirectUri: string }
  | { readonly kind: 'device'; readonly url: string; readonly userCode: string; readonly expiresAt: Date }
