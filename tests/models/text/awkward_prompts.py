"""Prompts that tokenizers get wrong, made anew on every run from one seed."""

import random

SAMPLES = [
    "", " ", "\t\n", "a", "A Fox", "a fox above a red apple on a striped blue background",
    "it's we're they'll I'd I'm you've don't", "IT'S WE'RE 'S 'Ll o'clock rock'n'roll ''s 'S'",
    "1234567890 3.14159 1,000,000 ½ ² Ⅷ ١٢٣ ४५६ 〇七", "a_b-c.d,e;f:g!h?i(j)k[l]m{n}o",
    "!!!??? ...,,, ---- ____ ~~~~ @@@@ #### $$$$", "<|startoftext|>", "<|endoftext|>", "<|endoftext|><|endoftext|>",
    "a<|endoftext|>b <|startoftext|> c", "<|StartOfText|> <|ENDOFTEXT|> <|EndOfText|>!", "<|endoftext",
    "|endoftext|>", "!<|endoftext|>'s", "</s>", "a </s> b", "a</s>b</s></s>", "<pad><unk></s>",
    "<extra_id_0> and <extra_id_99>x<extra_id_100>", "<Extra_id_0> </S> < /s> <extra_id_-1>",
    "＜pad＞ ＜/s＞ ＜extra_id_7＞", "▁", "▁▁a▁b▁", "a▁ ▁b", "_ ▁_", "tab\tnew\nline\r\nreturn\rform\ffeed\vvertical",
    "no\u00a0break thin\u2009space ideographic\u3000space line\u2028para\u2029sep "
    "zero\u200bwidth \ufeffbom next\u0085line ogham\u1680mark",
    "new marks \n\u1acf ª\u1acf a\u0897 \u200b\u1ae0 \x01\u0897", "nul\0inside \x01\x02\x1f\x7f \x80\x9f c1",
    "soft\u00adhyphen word\u2060joiner \u200ezwj\u200d \u200f \u202eoverride\u202c \u2066isolate\u2069",
    "café cafe\u0301 e\u0301\u0301 A\u030a Å \u212b ñ n\u0303 ﬁ ﬀ ǆ ŉ ß ẞ ſ",
    "İstanbul ISTANBUL ıi Iİ ΣΊΣΥΦΟΣ ὈΔΥΣΣΕΎΣ ς ᾼ ǅ",
    "a\u0323\u0307 a\u0307\u0323 q\u0307\u0323 \u1e9b\u0323 \u0344 \u0958 \u0f73 \u2adc",
    "\u0301 \u0301\u0301lone \u20e3 1\u20e3 #\ufe0f\u20e3 *\ufe0f",
    "한국어 한글 \u1112\u1161\u11ab \u1100\u1161 ㄱㄴㄷ ﾊﾟ ﾊﾞ ｶﾞ カ\u3099 か\u3099 ｱｲｳ",
    "日本語のテキスト、東京。「猫」 中文測試 简体字 𠮷野家 㐀 龥 々〆",
    "ไทย ทดสอบ ภาษา ลาว ສະບາຍດີ ខ្មែរ မြန်မာ བོད་ཡིག",
    "हिन्दी क्षत्रिय বাংলা தமிழ் తెలుగు ಕನ್ನಡ മലയാളം සිංහල ગુજરાતી ਪੰਜਾਬੀ",
    "العربية نص عربي ﷽ ﷺ لا ﻻ ‏RTL‎ עברית שָׁלוֹם ܣܘܪܝܝܐ ދިވެހި",
    "Русский текст Українська ЁЖИК ё Ђђ Ӂ ѐ ἀρχή Ελληνικά Հայերեն ქართული ᲥᲐᲠᲗᲣᲚᲘ",
    "😀 🦊🍎 👩‍👩‍👧‍👦 👨🏽‍🚀 🏳️‍🌈 🏴󠁧󠁢󠁳󠁣󠁴󠁿 🇯🇵🇫🇷🇺 ❤️ ☺︎ ©️ ™ ®", "ᎣᏏᏲ ᏣᎳᎩ ꭰꭱ 𐐀𐐨 𞤀𞤢 𝔘𝔫𝔦 𝒇𝒐𝒙 ⓕⓞⓧ ㎏ ㍿ ⅓ ℵ ℃ № ™ ｆｏｘ １２３",
    "\u0378\ue000\uf8ff\U000f0000\U0010ffff\ufffe\uffff\ufffd \U000e0041", "x" * 300, "ab" * 400, "a " * 200,
    "1" * 150, "!" * 200, "é" * 100, "日" * 200, "😀" * 60, "aA" * 100 + "'s" * 50, "word " * 600,
    "https://example.org/a?b=c&d=%20#frag user@host.tld C:\\dir\\file.txt", "SELECT * FROM t WHERE a='b'; -- drop",
    "{\"json\": [1, 2.5e-3, null]}",
    "<|im_start|>user\nhi<|im_end|>\n", "a<|im_end|>b <|IM_END|> <|im_end|", "\n\n<|im_start|>\n \n",
    "<tool_call>{}</tool_call> <think>\n\n</think> <tool_response>x</tool_response>", "<|vision_start|><|image_pad|>",
    "<tool_response>x</tool_response>", "{} {0} {prompt} {{}} %s", "  lead, trail  ", "\n lead\n\ntrail \n",
    "'ſ it'ſ 'Ll'LL 'rE 'vE 'M 'D 'T 're've 'x '' '\u0301s x'ſx", "a  b   c \t d\t\te \n f\n\n g \r\n h\r\r i\u2028 j",
    "!\n!!\r\n\n? \n! .\u2028.", "\u3000\u3000a\u3000 b\u00a0\u00a0c \u00a0d",
    " \n" * 100, "\n " * 100 + "x", " " * 300 + "x",
    "\u0301\u0301a \u0301b !a -b_c 1a a1 ½a ²³", "…" * 50 + "\n" * 50,
]  # fmt: skip

RANGES = [
    (0x20, 0x7E), (0x20, 0x7E), (0xA0, 0x24F), (0x250, 0x36F), (0x370, 0x52F), (0x530, 0x6FF), (0x900, 0xDFF),
    (0xE00, 0x11FF), (0x1200, 0x1FFF), (0x2000, 0x2BFF), (0x2E80, 0x33FF), (0x4E00, 0x9FFF), (0xA000, 0xABFF),
    (0xAC00, 0xD7A3), (0xF900, 0xFFFD), (0x10000, 0x11FFF), (0x1D000, 0x1F9FF), (0x20000, 0x2FA1F), (0x300, 0x36F),
    (0x0, 0x1F),
]  # fmt: skip
WORDS = "fox apple Red BLUE striped über naïve don't 2nd 3D co-op e.g. </s> <|endoftext|> <extra_id_3>".split()
WORDS += ["東京", "кот", "🦊", "½"]


def prompts(count, seed=0):
    """The samples, every ordered pair of a few of them, then `count` random mixtures of words and characters."""
    rng = random.Random(seed)
    result = list(SAMPLES)
    result += [a + b for a in SAMPLES[:20:3] for b in SAMPLES[20:50:3]]
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 30)):
            if rng.random() < 0.4:
                parts.append(rng.choice(WORDS))
            else:
                low, high = rng.choice(RANGES)
                parts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 6))))
            parts.append(rng.choice(["", " ", " ", "  ", "\n", ","]))
        result.append("".join(parts))
    return result
