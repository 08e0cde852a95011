import js from '@eslint/js'
import vue from 'eslint-plugin-vue'
import a11y from 'eslint-plugin-vuejs-accessibility'
import ts from 'typescript-eslint'

const features = ['setup', 'compare', 'fit', 'timeline', 'decomposition', 'hub', 'adapters', 'benchmark', 'forgetting', 'code', 'analogies', 'quiz', 'course']

export default ts.config(
  { ignores: ['dist', 'node_modules', 'src/shared/api/schema.d.ts'] },
  js.configs.recommended,
  ...ts.configs.strict,
  ...vue.configs['flat/recommended'],
  ...a11y.configs['flat/recommended'],
  { files: ['**/*.vue'], languageOptions: { parserOptions: { parser: ts.parser } } },
  {
    languageOptions: { globals: Object.fromEntries(['window', 'document', 'process', 'console'].map((name) => [name, 'readonly'])) },
    rules: {
      'no-undef': 'off', // TypeScript knows better
      'no-console': 'error',
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-non-null-assertion': 'off',
      'vue/max-attributes-per-line': 'off',
      'vue/singleline-html-element-content-newline': 'off',
      'vue/html-self-closing': 'off',
      'vue/multiline-html-element-content-newline': 'off',
      'vue/multi-word-component-names': ['error', { ignores: ['App', 'Home', 'Part2', 'Plain'] }],
      'vuejs-accessibility/label-has-for': ['error', { required: { some: ['nesting', 'id'] } }],
    },
  },
  // A feature stands on shared parts and never on another feature.
  ...features.map((name) => ({
    files: [`src/features/${name}/**`],
    rules: { 'no-restricted-imports': ['error', { patterns: features.filter((other) => other !== name).map((other) => `@/features/${other}/*`) }] },
  })),
  { files: ['src/shared/**'], rules: { 'no-restricted-imports': ['error', { patterns: ['@/features/*', '@/pages/*', '@/app/*'] }] } },
)
