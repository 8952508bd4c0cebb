"""The words of task=sql: names of tables, their columns, and the values of these.

All are single lower-case words. Those after a bar occur only in held-out tables, never in a training table: 9 table
names, 15 columns and two values of most kinds.
"""

from dataclasses import dataclass

__all__ = ["DOMAINS", "HELD_OUT", "KINDS", "RANGES", "Domain", "Words"]


@dataclass(frozen=True)
class Words:
    """Words of one sort: `known` ones occur in every split, `held_out` ones only in validation and test."""

    known: tuple[str, ...]
    held_out: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "Words":
        """Parses words separated by spaces; the held-out ones come after a bar."""
        known, _, held_out = text.partition("|")
        return cls(tuple(known.split()), tuple(held_out.split()))

    def all(self, *, held_out: bool) -> tuple[str, ...]:
        return self.known + self.held_out if held_out else self.known


@dataclass(frozen=True)
class Domain:
    """The table names of one subject and its possible columns; `kinds` maps a text column to its kind of values."""

    tables: Words
    texts: Words
    numbers: Words
    kinds: dict[str, str]


def _domain(tables: str, texts: str, numbers: str) -> Domain:
    """Parses a domain; `texts` lists column:kind, or only the column if the kind has the same name."""
    columns = [(entry.partition(":")[0], entry.rpartition(":")[2]) for entry in texts.split()]
    kinds = {name.lstrip("|"): kind.lstrip("|") for name, kind in columns}
    return Domain(Words.of(tables), Words.of(" ".join(name for name, _ in columns)), Words.of(numbers), kinds)


KINDS: dict[str, Words] = {
    name: Words.of(text)
    for name, text in {
        "person": "anna ben carla david emma frank grace henry ivy jack karen leo maria nina oscar quinn rosa sam "
        "tina victor wendy xavier yara zoe alan beth carl diana eric fiona george hanna igor julia kevin laura mark "
        "nora owen petra ralph sofia tom ursula vera walter | elsa hugo",
        "city": "paris london rome madrid berlin vienna oslo cairo tokyo delhi lima boston dallas denver miami seattle "
        "toronto sydney athens dublin lisbon prague warsaw geneva munich milan naples porto seville hamburg leeds "
        "bristol osaka seoul hanoi manila nairobi lagos tunis havana | quito riga",
        "country": "france spain italy germany austria norway egypt japan india peru canada australia greece ireland "
        "portugal poland sweden denmark finland turkey kenya nigeria brazil chile mexico cuba vietnam korea morocco "
        "iceland | bolivia latvia",
        "colour": "red blue green yellow black white brown grey pink purple silver gold beige navy | teal maroon",
        "animal": "dog cat horse cow sheep goat lion tiger bear wolf fox rabbit deer camel zebra monkey otter seal "
        "whale eagle falcon parrot turtle lizard | badger heron",
        "dish": "soup salad pasta pizza curry stew pie omelette risotto burger sandwich noodles pancake dumpling taco "
        "kebab sushi paella | lasagne falafel",
        "fruit": "apple pear plum peach cherry grape lemon lime mango banana melon fig apricot | papaya quince",
        "sport": "football tennis rugby hockey golf cricket boxing rowing cycling swimming judo chess archery sailing "
        "| fencing curling",
        "genre": "drama comedy thriller horror romance western fantasy mystery adventure history crime satire "
        "| noir musical",
        "music": "rock jazz blues folk pop soul metal reggae opera techno | disco gospel",
        "language": "english french spanish german italian dutch greek arabic hindi chinese japanese russian swedish "
        "danish polish turkish | czech welsh",
        "material": "wood steel glass stone brick paper leather cotton wool silk plastic copper iron marble clay | "
        "bamboo nylon",
        "month": "january february march april may june july august september october november december",
        "weekday": "monday tuesday wednesday thursday friday saturday sunday",
        "company": "zentek omnico brightex lumora vantix solvia corvex nordal primex axiom helion kestrel maxon orbis "
        "paragon quantum redwood starling trident unity vertex wexford apex delta | fenwick ternova",
        "title": "sunrise shadow river storm garden mirror winter summer bridge island castle forest harvest journey "
        "lantern meadow midnight mountain ocean orchard palace rainbow secret silence stranger thunder tower valley "
        "village whisper window wonder candle desert echo ember falcon harbor horizon legacy | labyrinth monsoon",
        "job": "teacher doctor nurse lawyer engineer farmer baker driver pilot painter singer writer plumber clerk "
        "guard judge sailor tailor waiter | surgeon jeweller",
        "plant": "rose tulip lily daisy oak maple pine cedar birch willow fern ivy moss cactus orchid lavender | "
        "magnolia juniper",
        "instrument": "piano guitar violin cello flute trumpet drum harp organ clarinet oboe banjo | lute bassoon",
        "team": "lions tigers bears wolves eagles hawks sharks bulls kings knights pirates rangers rockets giants "
        "saints titans comets dragons wizards vikings falcons | cobras marauders",
        "subject": "maths physics chemistry biology history geography art music latin english french economics "
        "philosophy law | geology civics",
        "fuel": "petrol diesel electric hybrid gas hydrogen | ethanol",
        "style": "modern classic gothic baroque rustic roman abstract minimal | cubist colonial",
        "river": "rhine danube thames seine nile amazon ganges volga elbe tagus loire mekong | orinoco tiber",
        "illness": "flu asthma fever cough measles migraine allergy anaemia diabetes fracture | sciatica eczema",
        "planet": "mercury venus mars jupiter saturn uranus neptune pluto | ceres titan",
        "size": "tiny small medium large huge",
        "level": "low middle high basic expert",
        "taste": "sweet sour bitter salty spicy mild | tangy smoky",
    }.items()
}

RANGES: dict[str, tuple[int, int, int]] = {  # number column -> the lowest, the highest, the step
    "year": (1950, 2022, 1), "price": (5, 500, 5), "age": (18, 80, 1), "salary": (1000, 9000, 100),
    "population": (10, 990, 10), "height": (50, 320, 1), "weight": (20, 240, 1), "rating": (10, 100, 1),
    "score": (0, 100, 1), "minutes": (40, 240, 5), "pages": (80, 900, 10), "distance": (5, 600, 5),
    "speed": (20, 400, 5), "goals": (0, 60, 1), "wins": (0, 50, 1), "losses": (0, 50, 1), "points": (0, 150, 1),
    "seats": (20, 800, 10), "rooms": (2, 90, 1), "floors": (1, 90, 1), "stock": (0, 300, 5), "area": (10, 990, 10),
    "length": (10, 900, 5), "budget": (10, 950, 10), "votes": (100, 9900, 100),
    "students": (20, 900, 10), "power": (40, 700, 5), "copies": (1, 120, 1),
    "calories": (50, 950, 10), "grams": (10, 990, 10), "staff": (5, 400, 5), "visitors": (100, 9900, 100),
    "awards": (0, 40, 1), "lifespan": (1, 90, 1), "cost": (10, 990, 10), "sales": (10, 990, 10),
    "temperature": (1, 99, 1), "tracks": (4, 40, 1), "orbit": (80, 990, 10),
    "crew": (2, 90, 1), "profit": (10, 990, 10), "debt": (10, 990, 10),
    "rainfall": (10, 400, 5), "islands": (1, 60, 1), "stars": (1, 60, 1), "medals": (0, 60, 1),
    "credits": (1, 60, 1), "lessons": (5, 120, 1), "fee": (10, 900, 10),
    "dose": (5, 400, 5), "servings": (1, 40, 1), "mileage": (10, 990, 10), "dives": (1, 90, 1), "bonus": (10, 990, 10),
    "lockers": (20, 900, 10),
}  # fmt: skip

DOMAINS: tuple[Domain, ...] = (
    _domain(
        "films movies cartoons sequels", "title director:person studio:company genre country actress:person",
        "year minutes rating budget awards",
    ),
    _domain(
        "books novels essays comics |memoirs", "title author:person publisher:company genre language",
        "year pages price rating copies",
    ),
    _domain(
        "cities towns capitals villages", "city mayor:person country river language saint:person",
        "population area height visitors rainfall",
    ),
    _domain(
        "workers employees staffers clerks |interns", "person job city company weekday",
        "age salary score height |bonus",
    ),
    _domain(
        "players athletes champions rookies", "person team country sport coach:person |sponsor:company",
        "age height goals points wins",
    ),
    _domain(
        "teams clubs squads leagues |crews", "team coach:person city sport colour",
        "wins losses points seats |medals",
    ),
    _domain(
        "products goods gadgets tools", "brand:company colour material country size |inventor:person",
        "price weight stock sales rating",
    ),
    _domain(
        "cars trucks vans buses |tractors", "brand:company colour fuel country owner:person",
        "year price speed power |mileage",
    ),
    _domain(
        "hotels hostels inns resorts", "city owner:person style colour country porter:person",
        "rooms floors price rating staff",
    ),
    _domain(
        "schools colleges academies universities |seminaries", "city principal:person subject level colour",
        "students staff fee score lockers",
    ),
    _domain(
        "animals pets mammals birds", "animal owner:person colour country size keeper:person",
        "age weight height speed lifespan",
    ),
    _domain(
        "dishes meals recipes snacks |desserts", "dish chef:person country taste weekday",
        "price calories grams minutes |servings",
    ),
    _domain(
        "songs albums records ballads", "title singer:person music language label:company |drummer:person",
        "year minutes tracks sales votes",
    ),
    _domain(
        "patients visitors guests clients |donors", "person illness doctor:person city month",
        "age weight cost height |dose",
    ),
    _domain(
        "flowers trees plants shrubs", "plant colour month country size |gardener:person",
        "height price age stock rating",
    ),
    _domain(
        "ships boats ferries yachts |canoes", "title captain:person city colour material",
        "year length speed crew |dives",
    ),
    _domain(
        "bridges towers castles houses", "title architect:person city style material |builder:company",
        "year height length cost floors",
    ),
    _domain(
        "planets moons comets probes |asteroids", "planet finder:person country colour size",
        "year orbit temperature distance |islands",
    ),
    _domain(
        "companies firms shops banks", "company founder:person city country weekday |notary:person",
        "year staff profit sales debt",
    ),
    _domain(
        "courses classes seminars workshops", "subject teacher:person weekday language level |tutor:person",
        "students lessons credits fee score",
    ),
    _domain(
        "trips flights tours cruises", "city guide:person country month weekday steward:person",
        "price distance minutes seats visitors",
    ),
    _domain(
        "concerts festivals recitals parties", "city singer:person music month instrument |pianist:person",
        "year seats price visitors stars",
    ),
    _domain(
        "paintings statues drawings posters", "title painter:person colour style material curator:person",
        "year height price weight votes",
    ),
    _domain(
        "fruits crops harvests jams", "fruit farmer:person country taste month grocer:person",
        "price grams stock calories",
    ),
)  # fmt: skip

HELD_OUT = frozenset(
    word
    for words in (*KINDS.values(), *(words for d in DOMAINS for words in (d.tables, d.texts, d.numbers)))
    for word in words.held_out
)
"""Every word that occurs in validation and test only."""
