import { readdirSync } from 'node:fs'
import js from '@eslint/js'
import vue from 'eslint-plugin-vue'
import a11y from 'eslint-plugin-vuejs-accessibility'
import ts from 'typescript-eslint'

const features = readdirSync(new URL('src/features', import.meta.url), { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map((entry) => entry.name)

/** How code is laid out is prettier's business alone. */
const LAYOUT = [
  'first-attribute-linebreak',
  'html-closing-bracket-newline',
  'html-closing-bracket-spacing',
  'html-indent',
  'html-quotes',
  'html-self-closing',
  'max-attributes-per-line',
  'multiline-html-element-content-newline',
  'singleline-html-element-content-newline',
]

export default ts.config(
  { ignores: ['dist', 'dist-static', 'node_modules', 'src/shared/api/schema.d.ts'] },
  js.configs.recommended,
  ...ts.configs.strict,
  ...vue.configs['flat/recommended'],
  ...a11y.configs['flat/recommended'],
  { files: ['**/*.vue'], languageOptions: { parserOptions: { parser: ts.parser } } },
  {
    languageOptions: {
      globals: Object.fromEntries(['window', 'document', 'process', 'console'].map((name) => [name, 'readonly'])),
    },
    rules: {
      ...Object.fromEntries(LAYOUT.map((name) => [`vue/${name}`, 'off'])),
      'no-undef': 'off', // TypeScript knows better
      'no-console': 'error',
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-non-null-assertion': 'off',
      'vue/multi-word-component-names': ['error', { ignores: ['App', 'Home', 'Part2', 'Plain'] }],
      'vuejs-accessibility/heading-has-content': ['error', { accessibleChildren: ['KeptText'] }],
      'vuejs-accessibility/label-has-for': ['error', { required: { some: ['nesting', 'id'] } }],
    },
  },
  // A feature stands on shared parts and never on another feature.
  ...features.map((name) => ({
    files: [`src/features/${name}/**`],
    rules: {
      'no-restricted-imports': [
        'error',
        { patterns: features.filter((other) => other !== name).map((other) => `@/features/${other}/*`) },
      ],
    },
  })),
  {
    files: ['src/shared/**'],
    rules: { 'no-restricted-imports': ['error', { patterns: ['@/features/*', '@/pages/*', '@/app/*'] }] },
  },
)
