"""Questions and the passages that answer them, twenty-five in Chinese and twenty-five in English, written for these tests."""

CHINESE = [
    ("怎么给阳台上的番茄浇水？", "盆栽茄果类植物喜湿润但怕积水，表土干了再灌透，夏季早晚各一次为宜。"),
    ("笔记本电脑发热严重怎么办？", "先清理散热口的灰尘，再更换导热硅脂，必要时降低处理器的最高频率。"),
    ("第一次跑马拉松该怎么训练？", "新手应提前四个月开始，每周增加的里程不超过百分之十，并安排一次长距离慢跑。"),
    ("孩子晚上总是咳嗽是什么原因？", "夜间症状加重常见于鼻后滴漏、哮喘或胃食管反流，持续两周以上应就医。"),
    ("租房合同到期押金不退怎么办？", "房东无正当理由扣留保证金的，承租人可以凭交接清单向法院起诉要求返还。"),
    ("为什么天空是蓝色的？", "阳光进入大气层后，波长较短的光被空气分子散射得更多，因此我们抬头看到这种颜色。"),
    ("如何挑选一个熟的西瓜？", "敲击时声音沉闷、底部斑块呈黄色、瓜蒂卷曲的通常糖分较高。"),
    ("地铁里捡到钱包应该交给谁？", "拾得遗失物应当送交车站的工作人员或者公安机关，由其通知失主领取。"),
    ("高血压病人饮食要注意什么？", "每日食盐控制在五克以内，多吃富含钾的蔬菜水果，并限制饮酒。"),
    ("怎样才能快速背单词？", "利用遗忘曲线安排复习，把词汇放到句子里记忆，比死记硬背有效得多。"),
    ("猫为什么喜欢钻纸箱？", "狭小的空间给这种动物以安全感，也便于它隐藏自己、保持体温。"),
    ("量子计算机和普通计算机有什么区别？", "前者以叠加态的比特同时表示多种状态，对某些问题能实现指数级加速。"),
    ("房贷提前还款划算吗？", "若理财收益低于借款利率，早些偿清可以减少利息支出，但要留意违约金条款。"),
    ("新买的铁锅为什么会生锈？", "没有开锅的炊具表面缺少油膜，遇水氧化；洗净烘干后抹油即可防止。"),
    ("长城是什么时候修建的？", "这道防御工程始于春秋战国，秦统一后连接起来，现存的大部分为明代所筑。"),
    ("如何申请发明专利？", "向国家知识产权局提交请求书、说明书和权利要求书，经过实质审查后授权。"),
    ("飞机为什么能飞起来？", "机翼上下表面气流速度不同产生压力差，由此得到的升力克服重力。"),
    ("手机掉进水里了怎么处理？", "立即关机，不要充电，擦干表面后放到通风处静置，尽快送去检修。"),
    ("失眠有什么不吃药的办法？", "固定起床时间，睡前远离屏幕，躺下二十分钟仍清醒就离开床铺，直到困倦再回来。"),
    ("中秋节为什么要吃月饼？", "圆形的糕点象征团圆，相传与元末起义时传递消息的故事有关。"),
    ("股票和债券哪个风险大？", "权益类资产价格波动剧烈，可能亏损本金；固定收益产品通常更稳健。"),
    ("怎么把照片里的路人去掉？", "用修图软件的仿制图章或智能填充工具，选中多余的人物后自动补全背景。"),
    ("地震时在高层楼房里该怎么做？", "不要乘电梯，躲在坚固的桌子下或承重墙角，护住头部，摇晃停止后再撤离。"),
    ("什么食物含钙最多？", "奶制品、豆腐、虾皮和深绿色叶菜都是补充这种矿物质的良好来源。"),
    ("电动车冬天续航为什么变短？", "低温使锂电池活性下降，加上空调取暖耗能，行驶里程会减少两到四成。"),
]
ENGLISH = [
    (
        "How do I stop my bread from going stale?",
        "Keep loaves in a paper bag at room temperature, or freeze slices; refrigeration speeds up starch recrystallisation.",
    ),
    (
        "Why does my car make noise when braking?",
        "Squealing usually means worn pads whose metal indicator touches the rotor and should be replaced soon.",
    ),
    (
        "What is the best time to plant garlic?",
        "Cloves go into the ground in autumn, a few weeks before the first hard frost, for harvest the next summer.",
    ),
    (
        "Can I take a power bank on a plane?",
        "Lithium batteries up to 100 watt-hours must travel in cabin baggage and are not allowed in checked suitcases.",
    ),
    ("How is cheese made?", "Rennet curdles milk into solids, which are drained, salted, pressed and left to mature."),
    ("Why do cats purr?", "Felines vibrate their larynx when content, but also when injured, perhaps to calm themselves and heal."),
    (
        "How can I improve my credit score?",
        "Pay every bill on time, keep card balances far below their limit and avoid opening many accounts at once.",
    ),
    (
        "What causes the seasons?",
        "The tilt of our planet's axis makes sunlight strike each hemisphere more directly during part of its orbit.",
    ),
    (
        "How do vaccines work?",
        "They show the immune system a harmless piece of a pathogen so that it can respond quickly to a real infection.",
    ),
    (
        "How to remove red wine from a carpet?",
        "Blot the spill at once, then apply a mixture of dish soap and hydrogen peroxide before rinsing with cold water.",
    ),
    (
        "Who painted the ceiling of the Sistine Chapel?",
        "Michelangelo spent four years on scaffolding in the Vatican completing the frescoes in 1512.",
    ),
    (
        "What should I do if my passport is lost abroad?",
        "Report it to the local police and contact your embassy, which can issue an emergency travel document.",
    ),
    ("Why is the sea salty?", "Rivers carry dissolved minerals from rocks into the ocean, where evaporation leaves them behind."),
    (
        "How do I teach a dog to sit?",
        "Hold a treat above the nose and move it back until the hindquarters touch the floor, then reward at once.",
    ),
    (
        "Is it safe to eat raw eggs?",
        "Uncooked yolks may carry salmonella, so pregnant women and the elderly should choose pasteurised ones.",
    ),
    ("What is compound interest?", "Earnings are added to the principal so that each period's return is calculated on a growing sum."),
    (
        "How does a refrigerator keep food cold?",
        "A compressor circulates a coolant that absorbs heat inside as it evaporates and releases it outside as it condenses.",
    ),
    (
        "How do I recover deleted files?",
        "Stop writing to the disk and run an undelete utility, since erased data stays until it is overwritten.",
    ),
    (
        "Why do leaves change colour in autumn?",
        "As chlorophyll breaks down when days shorten, yellow and red pigments become visible in the foliage.",
    ),
    (
        "How long should I boil an egg?",
        "Six minutes give a runny yolk, ten a firm one; cool it under the tap afterwards to stop the cooking.",
    ),
    (
        "What is the difference between weather and climate?",
        "One describes the atmosphere over hours or days, the other its average over decades.",
    ),
    (
        "How do noise cancelling headphones work?",
        "Microphones pick up ambient sound and the speakers emit an inverted wave that cancels it out.",
    ),
    ("How can I fall asleep faster?", "A dark, cool bedroom, a fixed schedule and no screens before bed help most people drift off."),
    (
        "Why did the Roman Empire fall?",
        "Historians point to invasions, economic troubles, overexpansion and political instability in the west.",
    ),
    (
        "How do I change a bicycle tyre?",
        "Release the wheel, lever one side of the rubber off the rim, swap the inner tube and pump it up again.",
    ),
]
PAIRS = CHINESE + ENGLISH
