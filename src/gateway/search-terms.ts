// Words that say nothing about what is wanted.
const STOP_WORDS = new Set(
  `a about above again all also already am an and another any are as at away back be been being but by can could did do does
  doing done for from had has have having he her here hers him his how i if in into is it its just keep kind let like long
  many may me might more most much must my need next no not now of off on once one only or other our out over own per please
  rather right said same she should so some somebody someone something still such take takes than that the their them then
  there these they thing this those through to today together tomorrow too under until up upon us use used uses using very
  want wants was way we well were what when where whether which while who whom whose why will with within without would yes
  yesterday yet you your`.split(/\s+/),
)

// Words that tools and people use for the same thing, one meaning a line; a word may have several.
const SYNONYMS = [
  'create add new make insert write open put',
  'delete remove drop destroy erase clear',
  'get read show fetch retrieve view display see',
  'list show all browse enumerate',
  'find search query lookup look locate discover',
  'update edit change modify set rename put',
  'send post publish submit write',
  'run execute trigger start launch invoke',
  'stop kill terminate cancel abort end',
  'move rename transfer',
  'copy duplicate clone fork',
  'join merge combine concat concatenate',
  'cut clip trim crop',
  'download fetch save export',
  'upload attach import',
  'assign give grant',
  'finish complete done close resolve',
  'undo revert reset rollback restore',
  'enable activate',
  'disable deactivate',
  'mute silence',
  'buy purchase order',
  'file document doc',
  'folder directory',
  'repo repository project',
  'mail email',
  'message chat conversation',
  'ticket issue bug',
  'task todo reminder',
  'card ticket task',
  'picture image photo',
  'movie video',
  'audio sound voice speech',
  'web website page site internet url',
  'spreadsheet sheet excel worksheet',
  'slide presentation deck powerpoint',
  'user person people member',
  'client customer',
  'event meeting appointment',
  'calendar schedule agenda',
  'row record entry',
  'error failure fail crash break broken exception',
  'log output',
  'metric statistic stat measure',
  'documentation docs manual',
  'location place address',
  'drive route direction travel',
  'price cost',
  'stock share ticker',
]

// What a tool does, as its name says it, and what a request asks for.
const ACTIONS = {
  read: 'get read show fetch retrieve view display see list browse find search query lookup look check describe count inspect',
  create: 'create add new make insert open put generate build write schedule book start compose draft',
  update: 'update edit change modify set rename put patch write move mark assign append insert',
  delete: 'delete remove drop destroy erase clear purge',
  send: 'send post publish submit reply forward',
  run: 'run execute trigger start launch invoke restart retry rerun call play',
  stop: 'stop kill terminate cancel abort end pause close disable deactivate',
} as const

type Action = keyof typeof ACTIONS

/**
 * The terms of a text as they are indexed: names split at `_-./` and camelCase, accents, endings and fillers dropped. A text of
 * nothing but fillers keeps them: a tool may be called `do_all`.
 */
export function toTerms(text: string): string[] {
  const words = split(text)
  const saying = words.filter(says)
  return (saying.length > 0 ? saying : words).map(stem)
}

/** Two neighbouring words as one: "on call" may be called "oncall". */
export function toCompounds(text: string): string[] {
  const words = split(text)
  return words.slice(1).map((word, at) => stem(`${words[at]}${word}`))
}

const split = (text: string): string[] =>
  text
    .replace(/(\p{Ll}|\p{N})(\p{Lu})/gu, '$1 $2')
    .replace(/(\p{Lu})(\p{Lu}\p{Ll})/gu, '$1 $2')
    .normalize('NFKD')
    .replace(/\p{M}+/gu, '')
    .toLowerCase()
    .match(/[\p{L}\p{N}]+/gu) ?? []

const says = (word: string): boolean => !STOP_WORDS.has(word) && !/^\p{N}+$/u.test(word)

/** What the first verb among the terms does; several when it is said of more than one thing. */
export function actionsOf(terms: readonly string[]): readonly Action[] {
  for (const term of terms) {
    const known = actions.get(term)
    if (known) return known
  }
  return []
}

/** A question wants to know something, whatever verbs are in it. */
export const isQuestion = (text: string): boolean =>
  /^\s*(?:what|who|whom|whose|which|when|where|why|how|is|are)\b/i.test(text)

/** Terms that are written like names within a sentence: when no tool knows them, they are no typo. */
export const toProperNames = (text: string): ReadonlySet<string> =>
  new Set(toTerms([...text.matchAll(/(?<=[\p{Ll}\p{N},;] )\p{Lu}\p{Ll}+/gu)].join(' ')))

/** Other terms that mean the same. */
export const synonymsOf = (term: string): ReadonlySet<string> => synonyms.get(term) ?? NONE

const NONE: ReadonlySet<string> = new Set()

const VOWEL = /[aeiouy]/

/** An English word without the endings that nouns and verbs take. Rough: it only has to do the same to both sides. */
export function stem(word: string): string {
  if (word.length < 4) return word
  const singular = word.endsWith('ies')
    ? `${word.slice(0, -3)}y`
    : /(?:s|x|z|ch|sh)es$/.test(word)
      ? word.slice(0, -2)
      : /[^su]s$/.test(word)
        ? word.slice(0, -1)
        : word
  const root = singular.replace(/(?:ing|ed)$/, '')
  const base =
    root !== singular && root.length >= 3 && VOWEL.test(root) ? root.replace(/([^aeiouls])\1$/, '$1') : singular
  return base.length > 4 && base.endsWith('e') ? base.slice(0, -1) : base
}

const synonyms = new Map<string, Set<string>>()
for (const line of SYNONYMS) {
  const terms = line.split(' ').map(stem)
  for (const term of terms) {
    const others = synonyms.get(term) ?? new Set()
    for (const other of terms) if (other !== term) others.add(other)
    synonyms.set(term, others)
  }
}

const actions = new Map<string, Action[]>()
for (const [action, verbs] of Object.entries(ACTIONS)) {
  for (const verb of verbs.split(' ')) actions.set(stem(verb), [...(actions.get(stem(verb)) ?? []), action as Action])
}
