import { expect, it } from 'vitest'
import { priceSourceIn } from './priceSource'

it('says in Chinese where a price was read', () => {
  const source =
    'SkyPilot catalog v8 (catalogs/v8/lambda/vms.csv), snapshot of 2026, exact day not recorded (8-GPU node; 4.19 for 2)'
  expect(priceSourceIn('zh-CN', source)).toBe(
    'SkyPilot 价目表 v8（catalogs/v8/lambda/vms.csv），2026 年的快照，未记录具体日期（8 卡节点；2 卡的为 4.19）',
  )
  expect(priceSourceIn('en', source)).toBe(source)
  expect(
    priceSourceIn(
      'zh-CN',
      'https://www.hyperstack.cloud/gpu-pricing, transcribed in api-evangelist/nexgen-cloud plans/nexgen-cloud-plans-pricing.yml @0fa0509e (from; long-term contract)',
    ),
  ).toBe(
    'https://www.hyperstack.cloud/gpu-pricing，抄录于 api-evangelist/nexgen-cloud plans/nexgen-cloud-plans-pricing.yml @0fa0509e（起价；长期合同）',
  )
})
