# SPDX-License-Identifier: Apache-2.0
"""The words of expressions: `{a|b}` is one of both, `{a|}` a or nothing, and `~` marks what only the test's words have.

`<np>` stands for the object, `<it>` and `<they>` for a pronoun of it.
"""

from __future__ import annotations

NOUNS = {
    "car": "{car|car|car|car|car|sedan|suv|taxi|hatchback|cab|jeep|~automobile|~saloon|~auto|~coupe}",
    "van": "{van|van|van|minivan|delivery van|~transporter|~minibus|~panel van}",
    "truck": "{truck|truck|truck|lorry|semi|pickup|delivery truck|box truck|~hauler|~wagon|~big rig}",
    "bus": "{bus|bus|bus|city bus|coach|~omnibus|~shuttle}",
    "vehicle": "{vehicle|vehicle|vehicle|motor vehicle|~ride}",
    "person": "{person|pedestrian|man|guy|woman|pedestrian|person|man|lady|girl|friend of mine|worker|boy"
    "|~gentleman|~fellow|~passer-by|~someone|~dude}",
    "cyclist": "{cyclist|bicyclist|biker|person on the bike|man on the bicycle|~bike rider|~guy on a bicycle}",
    "motorcyclist": "{motorcyclist|biker|motorcycle rider|man on the motorbike|~guy on a motorcycle}",
    "bicycle": "{bicycle|bike|bike|~pushbike|~two-wheeler}",
    "motorcycle": "{motorcycle|motorbike|scooter|bike|~moped|~two-wheeler}",
    "tree": "{tree|tree|trunk of a tree|~tree trunk}",
    "sign": "{sign|traffic sign|street sign|sign post|~road sign}",
    "shelter": "{bus stop|bus shelter|bus stop|~stop for the bus}",
}
PRONOUNS = {"him": "man guy boy gentleman fellow dude", "her": "woman lady girl"}
"""by pronoun: the words for people after which it is said; 'them' after the others, 'it' after things"""
SUBJECTS = {"him": "he", "her": "she", "them": "they", "it": "it"}
"""by pronoun: the same as the subject of a sentence"""

SIDES = {
    "left": "{on the left|on the left|on the left side|on our left|to the left|to our left|on the left hand side"
    "|on the left side of the {road|street}|over on the left|on my left|~to the left of us|~at our left hand"
    "|~off to the left}",
    "right": "{on the right|on the right|on the right side|on our right|to the right|to our right|on the right hand side"
    "|on the right side of the {road|street}|over on the right|on my right|~to the right of us|~at our right hand"
    "|~off to the right}",
    "ahead": "{in front of us|in front|ahead|ahead of us|straight ahead|up front|up ahead|in front of me|right in front of us"
    "|~before us|~dead ahead|~directly ahead}",
    "behind_us": "{behind us|behind me|back there behind us|~in our back|~at the rear|~to the rear of us}",
    "ahead_left": "{up ahead on the left|ahead on the left|in front of us on the left|in front to the left"
    "|~further up on the left}",
    "ahead_right": "{up ahead on the right|ahead on the right|in front of us on the right|in front to the right"
    "|~further up on the right}",
    "behind_left": "{behind us on the left|back on the left|that we passed on the left|~at the rear left}",
    "behind_right": "{behind us on the right|back on the right|that we passed on the right|~at the rear right}",
    "beside_us": "{next to us|beside us|alongside us|right here beside us|~at our side}",
}
LEADING_SIDES = {"left": "{left|left hand|leftmost|~lefthand}", "right": "{right|right hand|rightmost|~righthand}"}
"""sides as a word before the noun"""

MOTIONS = {
    "parked": "{that is parked|parked|parked|that is stopped|standing|parked there|which is parked|~at rest|~left standing}",
    "moving": "{that is moving|that is driving|driving|in motion|going by|~on the move|~under way}",
    "oncoming": "{coming towards us|that is coming our way|coming at us|driving towards us|that is approaching"
    "|~heading towards us"
    "|~bearing down on us}",
    "same_way": "{driving in our direction|going the same way|going in the same direction|that drives along with us"
    "|~heading the same way}",
    "standing": "{standing|standing there|that is standing|waiting|who waits|who is waiting there|~who stands still"
    "|~hanging around}",
    "walking": "{walking|who is walking|that is walking|walking there|walking along|~strolling|~on foot}",
    "walking_towards": "{walking towards us|coming towards us|walking our way|~strolling towards us|~headed our way}",
    "walking_away": "{walking away from us|walking away|going away from us|~strolling away|~headed away from us}",
}
LEADING_MOTIONS = {
    "parked": "{parked|parked|stationary|stopped|~stationed}",
    "moving": "{moving|driving|passing|~rolling}",
    "oncoming": "{oncoming|approaching|coming|~opposing}",
    "standing": "{standing|waiting|~loitering}",
    "walking": "{walking|~strolling}",
}

ZONES = {
    "sidewalk": "{on the sidewalk|on the sidewalk|on the pavement|on the walkway|~on the footpath|~on the walk}",
    "road": "{on the road|on the street|in the street|in the lane|on the roadway|~in the carriageway}",
}

ORDERS = {
    "first": "{first|first|next|~foremost}",
    "second": "second",
    "third": "third",
    "last": "{last|last|final|~rearmost}",
    "nearest": "{nearest|closest|closest|~most nearby}",
    "farthest": "{farthest|furthest|most distant|~remotest}",
    "biggest": "{biggest|largest|~tallest}",
    "smallest": "{smallest|shortest|~littlest}",
}

RELATIONS = {
    "beside": "{next to|next to|beside|by|alongside|right next to|~adjacent to|~at the side of}",
    "near": "{near|close to|not far from|near to|~in the vicinity of|~nearby}",
    "behind": "{behind|behind|in back of|right behind|after|~following|~at the back of}",
    "in_front": "{in front of|in front of|before|just in front of|ahead of|~preceding}",
    "left_of": "{to the left of|left of|on the left of|just left of|~on the left hand of}",
    "right_of": "{to the right of|right of|on the right of|just right of|~on the right hand of}",
    "opposite": "{across from|opposite|opposite to|on the other side of the street from|~over the road from}",
}

METRES = "{about|around|some|~roughly} <n> {meters|metres} {away|ahead|from us}"
COLOURS = (
    "{white|white|white|black|black|black|red|red|silver|silver|blue|grey|gray|yellow|green|orange|dark|brown"
    "|light blue|~beige|~purple|~pink}"
)
CLOTHES = (
    "{in|in the|wearing a|with the|in a|~clad in} {white|black|red|blue|yellow|green|orange|grey|dark|~pink|~purple} "
    "{shirt|shirt|jacket|coat|vest|hat|dress|sweater|~hoodie|~cap|~blouse}"
)
MORE_CLOTHES = (
    "{with the backpack|with the phone|with a bag|with the {red|yellow|black} bag|in {white|black|red|blue}|~with the umbrella}"
)

STARTS = "{oh|well|ok|actually|hey|hi|oh no|wow|sorry|look}{ |, }"
"""what people begin with now and then"""

# whole sentences: what people say to a car; `<np>` once in each

PARTS = {
    "<stop>": "{park|park|park|stop|stop|pull over|pull up|wait|drop me off|let me out|~halt|~draw up}",
    "<place>": "{behind|behind|next to|next to|near|near|in front of|beside|by|close to|alongside|right behind|across from"
    "|before|just past|~to the rear of|~adjacent to}",
    "<sided>": "{turn|take a|make a|turn} {left|right|left|right}",
    "<lane>": "{left|right} lane",
    "<please>": "{please |please |could you |can you |ok |now |hey |just |you can |we need to |i want to |let us |~kindly "
    "|~would you }",
}
"""parts of sentences, by the slot that stands for them"""

ANY: tuple[str, ...] = (
    "<stop> <place> <np>",
    "<stop> <place> <np>",
    "<stop> <place> <np>",
    "<stop> <place> <np>",
    "<stop> <place> <np>",
    "<stop> <place> <np>",
    "<please><stop> <place> <np>",
    "<stop> {on the left|on the right|here|there|at the curb|at the corner|over there} <place> <np>",
    "<sided> {and|then|and then} <stop> <place> <np>",
    "<sided> {after|before|behind|past|at|when you are past|just after} <np>",
    "<sided> {into the street|at the next street|at the junction|down the road|at the lights} {after|before|by|near} <np>",
    "{find|look for|take} {a|the|some} {parking spot|parking space|spot|space|place to park} <place> <np>",
    "{slow down|slow down|go slower|go slow|be careful|drive carefully|reduce your speed|~ease off} {near"
    "|when passing|before|for|around|next to|by} <np>",
    "{watch out for|look out for|be careful of|keep your distance from|keep away from|stay away from|avoid|~mind"
    "|~steer clear of} <np>",
    "{drive|go|move|pull} {up to|towards|closer to|over to|around|past|right up to|near} <np>",
    "{change|switch|move|get|merge} {into|in|to|over to} the <lane> {after|before|behind|once we are past} <np>",
    "{change|switch} lanes {after|before|behind|once we are past|in front of} <np>",
    "{proceed|continue|drive on|go on} {slowly|carefully|straight|forward|} {behind|past|after|towards|until we are at} <np>",
    "{turn|pull|go|steer} {into|onto} the {parking lot|driveway|side street|intersection|entrance|other lane} {after|before"
    "|behind|next to|near|by} <np>",
    "{i'm|we are} {going|turning|looking|trying to get|supposed to go} {to|towards|past} <np>{ actually| i think|}",
    "{get|stay|remain|keep} {behind|in front of|next to|close to|clear of} <np>",
    "{wait|stop|hold on|slow down|~hold still} {here |}until {we are clear of|you can see the street behind"
    "|there is space next to} <np>",
    "{after|once} {you pass|passing|we have passed|you are past} <np> {,|} <sided>",
    "{do not|don't} {hit|get too close to|park behind|block|~bump into} <np>",
    "{what is|look at|show me|find|see|do you see|point at|where is|~spot|~locate} <np>",
    "{i need|i want|i have|we need|we have|i would like} to {get to|talk about|see|look at|stop at|go to|reach} <np>",
)
ROLLING: tuple[str, ...] = (
    "{follow|follow|follow|keep following|stay behind|get behind|drive behind|go after|~tail|~trail|~pursue} <np>",
    "{overtake|pass|pass|go around|get past|drive past|go past|~outrun} <np>",
    "{let|allow|~permit} <np> {pass|go first|go by|merge|in|through}",
    "{wait for|yield to|give way to|stop for|brake for} <np>{ to pass| to go by| to move| to turn|}",
    "{wait|stop|stay here} until <np> {passes|has passed|is gone|moves|turns|drives off}",
    "<sided> {when|after|once|as soon as} <np> {passes|has passed|is past us|is gone|goes by}",
    "{go|drive|turn|take the turn} {in the same direction as|the same way as|where|down the street with"
    "|like} <np>{ is going| goes|}",
    "{speed up|accelerate|slow down|brake} {because of|behind|to get in front of|for} <np>",
    "{get in|take|stay in|move to|switch to} the same lane as <np>",
)
PEOPLE: tuple[str, ...] = (
    "{pick up|pick up|get|collect|fetch|take along} <np>{ on the way| over there| please|}",
    "{let|allow} <np> {cross|cross the road|cross first|pass|get in|~over}",
    "{wait for|stop for|yield to|brake for|watch} <np>{ to cross| to cross the street| to get in|}",
    "{stop|wait|slow down|stay here} {until|while|so} <np> {crosses|has crossed the road|is across|can cross}",
    "{ask|talk to|i want to talk to|i need to ask|i have to talk to|honk at|greet|~say hello to} <np>{ for directions|}",
    "{pull over|stop|drive up|move closer} {to|next to|near|by|beside} <np>{,|} {i know |that is }{my friend"
    "|someone i know|my brother|my colleague|my wife}",
    "<sided> {after|once|when} <np> {crosses|has crossed|is across|is clear|walks by}",
)
# two sentences: the first names the object (`<np>`), the second refers back to it
OPENINGS: tuple[str, ...] = (
    "{there is|there is|that is|here is|i see|i can see|we are looking for|do you see|~i spot} <np>",
    "<np> is {my friend's|the one i mean|where we need to go|what i am looking for|the one we want|too close"
    "|in the way|blocking us}",
    "{see|look at|check|watch} <np>",
    "{it is|i mean|it should be|i think it is|we want} <np>",
    "{i need to get to|i want to go to|we have to reach|i am meeting someone at|i left my bag at} <np>",
)
PEOPLE_OPENINGS: tuple[str, ...] = (
    "{there is|that is|i see|i can see|here comes} {my friend|my brother|my wife|mark|jim|my colleague|anna|my son"
    "|~my cousin|~paul}{,| :|} <np>",
    "<np> {is my friend|is waiting for us|is waiting for me|wants a ride|needs a ride|needs help|wants to cross|is my colleague}",
    "{i know|i am meeting|i am here for|we are here for|i need to talk to|i have to meet} <np>",
)
CLOSINGS: tuple[str, ...] = (
    "<stop> <place> <it>",
    "<stop> <place> <it>",
    "<please><stop> <place> <it>",
    "<sided> {after|before|behind} <it>",
    "{get|go|drive|pull up|move} {closer to|next to|behind|over to|to|towards} <it>",
    "{be careful|slow down|watch out|keep some distance|take care} {of|near|for|with} <it>",
    "{pull over|stop|park|wait} {there|here|over there|nearby}",
    "<they> {looks|seems} {lost|stuck|close|safe|far|ready|new}, {so|but} {be careful|slow down|go on slowly|do not stop}",
)
ROLLING_CLOSINGS: tuple[str, ...] = (
    "{follow|follow|pass|overtake|let us follow|wait for|stay behind|~tail} <it>",
    "{let|allow} <it> {pass|go first|in|through}",
)
PEOPLE_CLOSINGS: tuple[str, ...] = (
    "{pick|let us pick|we need to pick|please pick} <it> up",
    "{let|allow} <it> {cross|in|get in|cross first}",
    "{wait for|stop for|ask|talk to|drop me off near|pull over by} <it>",
    "<they> {will be waiting|said to stop here|might need help|might be crossing|would like a ride|should get in}",
)
ENDINGS = (
    "{please|so i can get out|so that i can see it|and wait|and let me out|for a moment|when you can|when it is safe"
    "|now|quickly"
    "|and turn around|and turn off the engine|because i am in a hurry|thanks|for me|today|if possible"
    "|if there is space|as soon as possible"
    "|and then turn {left|right}|and continue straight|and keep going|until i am back|so we can park|i want to get out here"
    "|~without delay|~at once|~with caution}"
)
