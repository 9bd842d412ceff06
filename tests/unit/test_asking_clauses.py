"""Names and numbers of the person who asks do not deny what the documents say; those of the question do."""

import pytest

from ragsvc.core.retrieval.answerability import ABSTAIN_BELOW
from ragsvc.core.retrieval.asking_clauses import asking_text
from ragsvc.core.text.content_words import content_words
from tests.unit.test_answering import hit, judge

BOATS = hit(
    "The canoe Otter carries two persons and costs 12 euros per hour. The sailing boat Falke needs a licence and costs"
    " 35 euros per hour. The deposit for every boat is 50 euros. The harbour office is closed on Mondays.",
    dense=0.45,
)
WARRANTY = hit(
    "The warranty lasts five years for the motor and two years for all other parts. Claims are sent to the works in"
    " Lindau within 30 days after the fault was found.",
    dense=0.45,
)
DEPOSIT = [
    "How much is the deposit for a boat?",
    "Hi, I am Anna from Berlin. How much is the deposit for a boat?",
    "My name is Tom Berger and I booked for Saturday. How much is the deposit?",
    "According to the PDF, how much is the deposit?",
    "1. How much is the deposit?",
    "How much is the deposit for 3 boats?",
    "How much is the deposit in USD?",
    "On 12 July 2026 we want to rent a boat; how much is the deposit?",
    "Dear Sir or Madam, my wife Julia and I are travelling from Vienna. How much is the deposit?",
    "Question 3: How much is the deposit?",
    "Q2. How much is the deposit?",
    "(Ticket #4711) How much is the deposit?",
    "As a customer from Hamburg, how much do I pay as deposit?",
    "How much is the deposit if I book in May 2027?",
    "Our group of 12 from Siemens wants boats. How much is the deposit for every boat?",
    "We are 14 adults. How much is the deposit for each boat?",
    "How much is the deposit on 14 June?",
    "Hello, this is Laura from Audit. How much is the deposit?",
    "Can you tell me how much the deposit is? Thanks, Peter Schmidt",
    "My boss Mr. Klein asks: how much is the deposit?",
    "Guten Tag, ich bin Anna aus Berlin. How much is the deposit?",
    "FYI: I work for Deutsche Bahn. How much is the deposit?",
    "How much is the deposit, please? I need it by 5 pm.",
    "For 120 guests, how much is the deposit per boat?",
    "How much is the deposit on Saturdays?",
    "In the document, how much is the deposit?",
    "Please answer in German: how much is the deposit?",
    "How much is the deposit as of 2026?",
    "How much is the deposit in euros for 2 adults and 3 children?",
]
CLAIMS = [
    "How long does the warranty of the motor last if I bought it in 2024?",
    "I bought the motor in Hamburg in May 2023. How long does its warranty last?",
    "When do I have to send a claim? My order number is 483-2211.",
    "2) Where are claims sent?",
    "How long is the warranty for 2 motors?",
    "Wie lange gilt die warranty für den motor? Ich heiße Jana und komme aus Köln.",
    "Hello Bot, we are Meyer GmbH from Kassel; within how many days are claims sent?",
    "No. 12: Where are claims sent when I live in Austria?",
    "[Case 77/2025] Where are claims sent to?",
    "As a customer from Graz, where do I send claims?",
    "Regarding my purchase on 3 May 2024: how many years does the warranty last for the motor?",
]


MORE_DEPOSIT = [
    "I'm Priya, a nurse in Leeds, and my husband Dev wants to come along. What's the deposit?",
    "As discussed with Ms. Okafor on Tuesday: how much is the deposit?",
    "Kindly advise the deposit amount for 2 boats. Best regards, J. Thornton, Acme Ltd.",
    "How much is the deposit in Swiss francs?",
    "Per the handbook v2.3, how much is the deposit?",
    "URGENT - Request 2211 - how much is the deposit",
    "On behalf of Contoso Ltd: how much is the deposit?",
    "Re: your mail of 3 May - how much is the deposit?",
    "Sent from my iPhone\n\nHow much is the deposit?",
    "How much is the deposit? Cheers, Luca Rossi, Turin",
]
RENTALS = {
    "german": (
        "Das Mietrad kostet 14 Euro am Tag. Die Kaution beträgt 80 Euro und wird bei Rückgabe erstattet.",
        [
            "Guten Abend, mein Name ist Markus Weber, Kundennummer 88213. Wie hoch ist die Kaution?",
            "Wir kommen am 12. Juli 2026 mit 5 Personen aus Graz. Wie hoch ist die Kaution?",
            "Laut Vertrag: wie hoch ist die Kaution pro Rad?",
            "Wie hoch ist die Kaution in CHF? Viele Grüße, Sabine Kurz",
        ],
    ),
    "french": (
        "Le vélo coûte 14 euros par jour. La caution est de 80 euros et elle est rendue au retour.",
        [
            "Bonjour, je m'appelle Claire Dubois et j'habite à Lyon. Quel est le montant de la caution ?",
            "Quelle est la caution pour 3 vélos ?",
            "Selon le PDF, à combien s'élève la caution ?",
            "Nous arrivons le 12 juillet 2026. Quelle est la caution ? Cordialement, Luc Martin",
        ],
    ),
    "spanish": (
        "La bicicleta cuesta 14 euros al día. La fianza es de 80 euros y se devuelve al final.",
        [
            "Hola, soy Javier de Sevilla. ¿Cuánto cuesta la fianza?",
            "¿Cuánto es la fianza para 3 bicicletas?",
            "Me llamo Ana Torres y llego el 12 de julio de 2026. ¿De cuánto es la fianza?",
        ],
    ),
    "chinese": (
        "自行车每天租金为14欧元。押金为80欧元,归还时退还。",
        ["你好,我是来自上海的王伟。押金是多少?", "根据PDF,押金是多少?", "我们2026年7月12日来,租3辆自行车,押金是多少?"],
    ),
}


@pytest.mark.parametrize(
    ("question", "text"),
    [(question, text) for text, questions in RENTALS.values() for question in questions]
    + [(question, BOATS.passage.text) for question in MORE_DEPOSIT],
)
def test_introductions_and_signatures_in_several_languages_deny_nothing(question: str, text: str):
    assert judge(question, [hit(text, dense=0.45)]) >= ABSTAIN_BELOW


@pytest.mark.parametrize("question", DEPOSIT)
def test_who_asks_and_for_how_many_does_not_deny_the_deposit(question: str):
    assert judge(question, [BOATS]) >= ABSTAIN_BELOW


@pytest.mark.parametrize("question", CLAIMS)
def test_who_asks_and_since_when_does_not_deny_the_warranty(question: str):
    assert judge(question, [WARRANTY]) >= ABSTAIN_BELOW


@pytest.mark.parametrize(
    ("question", "text", "cosine"),
    [
        ("who won the 2018 world cup?", BOATS.passage.text, 0.05),
        ("What is the population of Portugal?", "Finland has a population of 5.5 million.", 0.45),
        ("What was Microsoft's revenue?", "Revenue of Apple in 2023 was $383 billion.", 0.6),
        ("What was the revenue in 2019?", "Revenue of Apple in 2023 was $383 billion.", 0.6),
        ("Hi, I am Tom. What was Siemens' revenue?", "Revenue of Apple in 2023 was $383 billion.", 0.6),
        ("Who teaches F#?", "The C# course takes place with teacher Olaf Brun.", 0.4),
        ("How long is the warranty of my Yamaha F40?", WARRANTY.passage.text, 0.45),
        ("When does bus 57 leave the town hall?", "Bus 42 leaves the town hall at 6:12.", 0.5),
        ("2019年亚洲的销售额是多少?", "2023年亚洲的销售额为97万。", 0.5),
        ("Dear team, what did Siemens earn in 2019? Best regards, Ann", "Apple earned $97 billion in 2023.", 0.5),
        ("Bonjour, je suis Luc. Quelle est la population de la Norvège ?", "La Suède a 10 millions d'habitants.", 0.4),
        ("How many sheets did the model X200 print in March 2024?", "The X100 printed 500 sheets in May 2023.", 0.5),
    ],
)
def test_names_and_years_of_the_question_still_deny(question: str, text: str, cosine: float):
    assert judge(question, [hit(text, dense=cosine)]) < ABSTAIN_BELOW


@pytest.mark.parametrize(
    "question",
    [
        "In 2023, what were Apple's net sales?",
        "What happened at World War I, and when?",
        "How large is Section 3 and who owns Model 3?",
        "Apple net sales 2023",
        "Was kostet das Boot in Lindau?",
    ],
)
def test_a_question_without_its_author_stays_as_it_is(question: str):
    assert asking_text(question) == question


def test_a_year_in_a_chinese_question_is_found_beside_chinese_characters():
    assert judge("2023年亚洲的销售额是多少?", [hit("2023年亚洲的销售额为97万。", dense=0.5)]) >= ABSTAIN_BELOW


def test_a_greeting_after_the_question_is_its_subject():
    assert asking_text("Wie grüßt man auf Russisch? Привет, мир").endswith("мир")
    assert asking_text("Hey there, Lena here. How much is the fee?") == "How much is the fee?"


def test_numbers_and_codes_beside_chinese_characters_are_words_of_their_own():
    assert content_words("2023年亚洲的销售额") == ["2023", "年亚洲的销售额"]
    assert content_words("B1课程的价格") == ["b1", "课程的价格"]


@pytest.mark.parametrize(
    ("question", "number"),
    [
        ("What percentage of nodes come from layer 1 with BM25 as the retriever?", "layer 1"),
        ("What did the respondents of wave 3 say?", "wave 3"),
        ("Which share do tier 2 retailers spend on data security?", "tier 2"),
    ],
)
def test_the_number_of_a_layer_wave_or_tier_is_no_quantity(question: str, number: str):
    assert number in asking_text(question)


@pytest.mark.parametrize(
    "question",
    [
        "What should I do if I cannot connect my computer to the headset?",
        "What happens if I press the button for two seconds?",
        "Was kann ich tun, wenn ich keinen Ton höre?",
    ],
)
def test_the_case_of_the_author_is_kept_if_the_question_has_no_other_words(question: str):
    assert asking_text(question) == question
