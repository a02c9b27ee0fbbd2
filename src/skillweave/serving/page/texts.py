"""The words of the page, in English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping

WORDS: dict[str, tuple[str, str]] = {
    "title": ("One compact model, only the part that is needed", "一个小模型，只运行需要的部分"),
    "search": ("Search", "搜索"),
    "ask": ("Ask", "提问"),
    "classify": ("Classify", "分类"),
    "transcribe": ("Transcribe", "听写"),
    "write": ("Write", "写作"),
    "interference": ("Which tasks help or harm", "任务之间的影响"),
    "model": ("The model", "模型"),
    "query": ("What are you looking for?", "想找什么？"),
    "query_hint": ("a laughing face, or 下雨", "一张笑脸，或者 rain"),
    "within": ("Search in", "搜索范围"),
    "image": ("pictures", "图片"),
    "sound": ("recordings", "录音"),
    "video": ("clips", "短片"),
    "code": ("functions", "代码"),
    "text": ("texts", "文本"),
    "example": ("… or what resembles this", "……或者找相似的"),
    "example_image": ("A picture", "图片"),
    "example_sound": ("A recording", "录音"),
    "example_video": ("A clip", "短片"),
    "options": ("More options", "更多选项"),
    "count": ("Results", "结果数"),
    "where": ("Only where", "筛选条件"),
    "where_hint": ("year>=2020, label=cat", "year>=2020, label=cat"),
    "words": ("Match the words as well", "同时匹配字词"),
    "go": ("Find", "查找"),
    "labels": ("Labels of your own, separated by commas", "自定义标签，用逗号分隔"),
    "labels_hint": ("happy, sad, angry", "高兴，难过，生气"),
    "to_classify": ("A text", "文本"),
    "sort": ("Sort into labels", "分类"),
    "listen": ("Write down", "转成文字"),
    "transcript": ("What was said", "听到的内容"),
    "prompt": ("Your text", "输入文本"),
    "question": ("Your question", "问题"),
    "question_hint": ("What is in the picture?", "图里是什么？"),
    "ask_go": ("Ask", "提问"),
    "give_both": ("Give a file and a question first.", "请先选择文件并输入问题。"),
    "question_image": ("The picture that it is about", "相关的图片"),
    "question_sound": ("The recording that it is about", "相关的录音"),
    "question_video": ("The clip that it is about", "相关的短片"),
    "answer": ("What the model writes", "模型写的内容"),
    "most": ("Most tokens", "最多词元"),
    "compose": ("Write", "开始写"),
    "nothing": ("Nothing was found.", "没有找到。"),
    "give": ("Give a text or a file first.", "请先输入文字或选择文件。"),
    "ran": ("The part of the model that ran", "本次运行的部分"),
    "of": ("of", "/"),
    "parameters": ("parameters", "个参数"),
    "milliseconds": ("ms in the model", "毫秒推理"),
    "waiting": ("ms of waiting", "毫秒等待"),
    "task": ("Task", "任务"),
    "reads": ("Reads and writes", "读写"),
    "active": ("Activates", "激活参数"),
    "no_data": (
        "No data are searched here. Start the service with --data and a folder or table.",
        "没有可搜索的数据。启动服务时请用 --data 指定文件夹或表格。",
    ),
    "score": ("similarity", "相似度"),
    "effects": (
        "A row is a task; a column is the task that is trained for a step. 1 means that the step"
        " helps the row's task as much as one of its own, below 0 that it harms it. Faint cells"
        " are uncertain: their 95 % interval holds 0.",
        "行是受影响的任务，列是训练一步的任务。1 表示这一步与该任务自己的一步同样有益，"
        "小于 0 表示有害。浅色格子不确定：95 % 区间包含 0。",
    ),
    "no_effects": (
        "Nobody has measured yet how the tasks of this model influence each other. For a run:",
        "还没有测量这个模型的任务之间的影响。对训练结果运行：",
    ),
    "harms": ("harms", "有害"),
    "helps": ("helps", "有益"),
    "uncertain": ("uncertain", "不确定"),
    "trained": ("trained for a step", "训练一步的任务"),
    "none_shared": ("no shared parameter", "没有共享参数"),
    "on": ("on", "→"),
}
"""Name of a text → English and Chinese."""
LANGUAGES = ("en", "zh")


def language_of(header: str) -> str:
    """The language of the page for a browser's `Accept-Language`."""
    first = header.split(",")[0].strip().lower()
    return "zh" if first.startswith("zh") else "en"


def translated(language: str) -> Mapping[str, str]:
    """All words in a language."""
    number = LANGUAGES.index(language)
    return {name: words[number] for name, words in WORDS.items()}


def both(name: str) -> str:
    """A word in both languages, where a page cannot choose."""
    return " ".join(WORDS[name])
