"""Tokenizers built without files: one token per byte, or word pieces that byte-pair merges build from bytes.

The merges of `sql_decoder` come from the training texts of task=sql (split_seed 0). A word that does not occur in these
texts, such as one of a held-out table, is split into smaller pieces, down to bytes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

__all__ = ["MERGES", "byte_level", "word_pieces"]

Merges = Sequence[tuple[str, str]]


def byte_level(specials: Sequence[str], *, unknown: str) -> "Tokenizer":
    """A tokenizer whose ids are `specials` and the 256 bytes, in this order."""
    from tokenizers import pre_tokenizers

    return _tokenizer(specials, (), unknown, pre_tokenizers.ByteLevel(add_prefix_space=False))


def word_pieces(specials: Sequence[str], merges: Merges, *, unknown: str) -> "Tokenizer":
    """A tokenizer whose ids are `specials`, the 256 bytes, and the pieces that `merges` produce, in this order.

    A space is prepended to every text, so that its first word is tokenised like any other word.
    """
    from tokenizers import decoders, normalizers

    tokenizer = _tokenizer(specials, merges, unknown, _words())
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    return tokenizer


def _tokenizer(specials: Sequence[str], merges: Merges, unknown: str, words: "PreTokenizer") -> "Tokenizer":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = dict.fromkeys(left + right for left, right in merges)  # two pairs may produce the same piece
    vocabulary = {token: i for i, token in enumerate((*specials, *alphabet, *pieces))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges), unk_token=unknown))
    tokenizer.pre_tokenizer, tokenizer.decoder = words, decoders.ByteLevel()
    return tokenizer


def _words() -> "PreTokenizer":
    """Splits a text into words with the preceding space, and numbers into digits, so that numbers can be copied."""
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


_JOINED = (
    "Ġ+t e+r Ġ+, Ġ+s Ġt+e n+u x+t Ġte+xt Ġ+c m+b mb+er Ġ+nu Ġnu+mber Ġ+w e+s Ġ+f l+e i+t h+e i+n o+r c+t Ġc+o a+n r+o "
    "Ġw+h Ġs+e Ġ+p Ġt+he i+s Ġ+m ro+m le+ct Ġ+( Ġ+) Ġf+rom Ġse+lect a+l n+t a+r Ġ+' Ġ+l a+t i+c er+e Ġ+b Ġwh+ere Ġ+a "
    "i+g Ġco+u ig+h Ġ+is Ġcou+nt Ġs+t Ġ+d l+o igh+t u+r g+e Ġ+= Ġ+h o+n o+w in+g r+y Ġcount+ry y+e Ġc+it Ġ+g d+er r+e "
    "Ġp+r e+e ye+ar Ġcit+y t+s ic+e Ġb+y Ġ+year i+m s+t Ġpr+ice an+d Ġco+lo Ġcolo+ur Ġ+o i+es a+y Ġ+or er+s m+s Ġo+f "
    "ic+h he+ight Ġwh+ich Ġ+height Ġ+and Ġt+o Ġl+im Ġor+der Ġlim+it is+t Ġ+r t+es e+l Ġm+o Ġ+v c+k q+u d+ay Ġh+a or+s "
    "Ġw+it Ġwit+h c+h Ġ+in r+u Ġs+h m+p Ġ+le Ġt+it Ġtit+le Ġt+h k+day Ġw+ee Ġwee+kday es+t nt+h Ġmo+nth at+ing r+a "
    "Ġr+ating i+v o+s Ġf+in i+nu inu+tes Ġ+e on+g d+s Ġth+an g+u al+s e+nt Ġa+ge Ġm+inutes l+l s+es Ġp+l es+s f+f "
    "a+ge c+or Ġd+ist e+ight at+er qu+al Ġe+qual Ġs+p Ġw+eight al+l a+ff o+ck m+ong Ġa+mong Ġ+< Ġm+e Ġs+al at+s "
    "it+ors is+itors i+p Ġst+aff a+in Ġpl+an Ġv+isitors es+c Ġd+esc Ġ+> an+y s+c Ġa+sc a+st u+d an+gu Ġl+angu "
    "Ġlangu+age u+n ent+s el+s t+h Ġfin+d i+al Ġm+ater Ġmater+ial v+ing Ġha+ving cor+e Ġf+or on+s i+z a+ch ow+n "
    "Ġs+core Ġs+iz Ġsiz+e u+b Ġwh+os Ġwhos+e Ġp+o Ġc+l k+s c+e Ġsh+ow Ġco+mp Ġse+ats Ġl+ist Ġsal+es Ġst+ock Ġwh+at "
    "(+* (*+) Ġb+o Ġ+re Ġte+ll Ġp+ro e+ts ra+ms an+ce is+h Ġ+ar Ġg+iv Ġgiv+e Ġg+rams or+t Ġst+ud ee+d Ġha+s e+ct ck+s "
    "Ġp+ers Ġpers+on Ġh+o Ġf+lo Ġdist+ance Ġsp+eed g+es a+m Ġ+own Ġown+er y+le Ġst+yle ar+s or+ies al+ories u+m n+g "
    "c+ip Ġc+re Ġc+alories ng+th t+o p+s Ġ+un Ġt+ast Ġtast+e ain+t Ġf+ru Ġfru+it w+ar Ġle+ngth ow+er in+s ct+or "
    "Ġstud+ents o+tes a+p o+l Ġco+st Ġw+ins Ġcomp+any Ġv+otes s+ic ro+o Ġm+in Ġl+ess ge+n Ġ+roo Ġf+i in+ct Ġdist+inct "
    "i+ll Ġflo+ors ing+er Ġf+ee Ġs+inger Ġ+gen Ġgen+re Ġar+e Ġ+j v+el Ġle+vel Ġa+v Ġb+r Ġm+any Ġh+ow ip+s a+ds m+all "
    "in+ts at+i u+sic c+er o+v j+ect Ġs+ub Ġsub+ject Ġm+usic Ġpo+ints Ġd+ish Ġsp+ort a+ms u+es Ġco+m Ġs+mall d+e "
    "Ġco+ach Ġs+um Ġte+am Ġc+ap Ġg+re a+ges ur+s at+ur Ġw+or u+ses Ġh+igh ol+s g+est o+ps im+al it+als Ġbr+and to+m "
    "b+it Ġroo+ms Ġto+p Ġd+i a+s er+atur mp+eratur mperatur+e u+l Ġfin+der f+it n+a Ġte+mperature Ġg+o a+x Ġpro+fit "
    "Ġcre+w Ġor+bit t+tom Ġp+aint Ġbo+ttom ing+s Ġl+os Ġlos+ses e+t Ġto+urs e+b Ġav+g ar+y a+b n+ess Ġ+ill Ġill+ness "
    "un+der Ġ+an an+ies Ġp+ower "
)

MERGES = tuple((left, right) for left, _, right in (pair.partition("+") for pair in _JOINED.split()))
"""Merges of `sql_decoder`: 381 pairs, the most frequent first; with 256 bytes and three special tokens, 640 ids."""
