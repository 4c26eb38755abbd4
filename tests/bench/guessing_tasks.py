"""Prompts for `guessing.py`: answers that repeat their prompt, and some that do not."""

REPORT = """\
The pump station at Weir Lane was inspected on Tuesday morning. Pump A ran at 1450 revolutions per minute and \
its bearing temperature was 61 degrees. Pump B was out of service because its inlet valve leaked. The inspector, \
Maria Lopez, ordered a new gasket and asked the crew to check the oil level every day until Friday. The spare motor \
is stored in building 4, behind the generator. Nobody was hurt, and the alarm was reset at 11:40."""

CODE = '''def average_speed(samples, limit):
    """Mean of the speeds that do not exceed the limit."""
    total = 0
    count = 0
    for sample in samples:
        if sample.speed <= limit:
            total = total + sample.speed
            count = count + 1
    if count == 0:
        return 0
    return total / count


def slowest(samples):
    """The sample with the lowest speed."""
    best = samples[0]
    for sample in samples:
        if sample.speed < best.speed:
            best = sample
    return best'''

LETTER = """Dear Mr Okafor,
thank you for your order of 12 water filters. The parcel will leave our warehouse on Monday, and it should reach you \
before the end of the week. Please check the seals when it arrives, and keep the receipt in the box. If a filter is \
damaged, send us a photo and we will replace it at no cost. The filters must be changed every six months, and the \
housing should be washed with warm water only.
Kind regards,
Anna Berg"""

CONFIGURATION = """[station]
name = "north-ridge"
latitude = 46.8182
longitude = 8.2275
interval_seconds = 300

[sensors.wind]
port = "/dev/ttyUSB0"
baud = 9600
unit = "m/s"

[sensors.rain]
port = "/dev/ttyUSB1"
baud = 9600
unit = "mm"

[upload]
url = "https://weather.example/ingest"
retries = 5"""

MISSPELT = """The workshop opens at eight oclock and closes at six. Pleese wear gloves and glasses when you use the \
saw. Tools must be returned to the red cabinet before you leave, and the floor must be swept. If a machine makes a \
strange noise, switch it off and tell the foreman. Children are not allowed in the workshop without an adult. Water \
and coffee are free, but food must stay in the kitchen."""

RECORDS = """id,name,city,visits
1,Amara Nwosu,Lagos,14
2,Jonas Weber,Leipzig,3
3,Chen Wei,Chengdu,27
4,Sofia Rossi,Turin,9
5,Tomas Novak,Brno,12
6,Leila Haddad,Tunis,31
7,Peter Jansen,Utrecht,5
8,Grace Kim,Busan,18"""

COPYING = {
    "rewrite with one change": f"Replace the name Maria Lopez by Peter Hall in this text. Write the whole text again \
and change nothing else.\n\n{REPORT}",
    "rewrite a letter": f"Replace Okafor by Tanaka in this letter. Write the whole letter again and change nothing \
else.\n\n{LETTER}",
    "edit code": f"Rename the function slowest to lowest_speed. Write the whole code again and change nothing else.\n\n\
```python\n{CODE}\n```",
    "edit a configuration": f"Set interval_seconds to 60 in this file. Write the whole file again.\n\n\
```toml\n{CONFIGURATION}\n```",
    "fix spelling": f"This text has one spelling mistake. Write the text without the mistake, and change nothing \
else.\n\n{MISSPELT}",
    "extract sentences": f"Extract all sentences that speak of pumps from this report, word for word.\n\n{REPORT}",
    "answer with quotes": f"Read this letter.\n\n{LETTER}\n\nQuote the sentence about the parcel. Then quote the \
sentence about the seals. Then quote the last sentence.",
    "add a record": f"Add the record 9,Ivan Petrov,Sofia,22 at the end of this table and write the whole table \
again.\n\n{RECORDS}",
}

PLAIN = {
    "story": "Tell me a short story about a lighthouse keeper and a storm.",
    "explain": "Explain to a child why the sky is blue.",
    "advice": "What should I pack for a week of hiking in the mountains?",
    "facts": "Who was Marie Curie, and what did she discover?",
}
