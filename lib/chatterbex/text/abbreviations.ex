defmodule Chatterbex.Text.Abbreviations do
  @moduledoc false
  # What a dot after a word means, by language.
  #
  # Three kinds of abbreviation, without their last dot and in lower case:
  #   always  never ends a sentence: titles, "z.B."
  #   number  does not end a sentence before a number: "No. 5", but "He said no."
  #   maybe   ends a sentence before one of the language's `starters`: "etc. The", but "U.S. Army"
  # Initials ("J. K. Rowling") follow the same rule. `ordinals` is for languages that write "3. Mai" for "third",
  # before nouns in capitals or only before small letters, and for dates as in "2024. 5. 3.".

  @common %{
    always: "mr mrs ms mx dr prof vs e.g i.e cf st",
    number: "no nr p pp vol fig",
    maybe: "etc inc ltd corp jr sr a.m p.m u.s u.k ph.d"
  }

  @languages %{
    "ar" => %{
      always: "د أ م أ.د م.م ص.ب",
      number: "ص مج ج ط رقم",
      maybe: "إلخ الخ ق.م هـ"
    },
    "da" => %{
      always: "f.eks bl.a dvs d.v.s hr fr frk ca ang inkl ekskl evt jf pga p.g.a mht ifm vedr skt tlf cand mag
               adm dir kgl hhv iht mfl ad",
      number: "nr s kap kl fig art stk pkt str afs bd",
      maybe:
        "osv o.s.v m.m m.fl m.v mv o.l f.kr e.kr f.v.t e.v.t mio mia jan feb mar apr aug sep sept okt nov dec",
      ordinals: :before_small,
      starters:
        "Det Den De Der Han Hun Jeg Du Vi I Og Men Så Da Når Hvis Hvad Hvor Hvem Hvordan Hvorfor Et En Efter
                 Før Nu Her Ja Nej På Til Fra Med For Om Ikke Som Mens Senere Derfor Dette Disse"
    },
    "de" => %{
      always:
        "z.b bzw d.h u.a ca vgl evtl ggf inkl exkl zzgl hr hrn fr frl dipl dipl.-ing ing med jur phil rer nat
               habil sog geb gest gegr i.d.r i.a i.v u.ä m.e z.t z.zt v.a s.o s.u u.u bspw bzgl gem insb insbes mind
               ehem evang kath allg betr o.g d.j st str dr.med prof.dr z.hd z.hdn c/o u.v.a.m sen jun i.e
               einschl rd frhr hl röm russ frz engl dt amerik österr schweiz",
      number: "s abs art kap bd bde aufl abb tab ziff nrn hs anm hg nr az tel bl max min pos",
      maybe: "usw u.s.w e.v jh jhd jhdt mio mrd tsd n.chr v.chr o.ä u.ä.m mwst std sek co ff f a.d a.m a.d.ö
              jan feb apr aug sept okt nov dez bhf",
      ordinals: :before_any,
      endings: "str",
      starters:
        "Der Die Das Den Dem Des Ein Eine Einen Einem Er Sie Es Wir Ihr Ich Du Und Aber Oder Doch Dann Da Dort
                 Hier Heute Jetzt Wenn Als Nach Vor Bei In Im Am An Auf Aus Mit Von Zu Zum Zur Für Über Unter Wer Was
                 Wie Wo Warum Wann Dies Diese Dieser Dieses Man Nicht Kein Keine Ja Nein So Auch Danach Später Seine
                 Ihre Mein Meine Alle Viele Einige Trotzdem Deshalb Daher Allerdings"
    },
    "el" => %{
      always: "κ κα κκ κος δρ καθ π.χ δηλ λ.χ βλ πρβλ αγ στρ λεωφ οδ τηλ αρχ επ ν.δ π.δ υπ",
      number: "αρ σελ κεφ εικ τόμ άρθρ παρ σ",
      maybe: "κ.λπ κλπ κ.ά κ.τ.λ κτλ π.μ μ.μ μ.χ εκατ δισ χιλ α.ε ε.ε η.π.α",
      starters:
        "Ο Η Το Οι Τα Τον Την Ένας Μια Μία Ένα Και Αλλά Αν Όταν Μετά Πριν Τώρα Εδώ Εκεί Αυτός Αυτή Αυτό Αυτοί
                 Εγώ Εμείς Εσύ Εσείς Δεν Θα Να Στο Στη Στην Στον Στις Στα Με Για Από Πού Πώς Τι Γιατί Ποιος Ναι Όχι
                 Έτσι Όμως Όλα Όλοι Κάθε Ύστερα"
    },
    "en" => %{
      always:
        "messrs mmes mlle rev hon gen col maj capt cmdr cdr lt sgt cpl pvt adm gov sen rep pres supt mt viz
               approx esp dept transl misc incl excl resp al.-ed brig insp fr pvt.-1st c.f v",
      number: "nos figs vols ch chap chs sec secs para paras pt eq eqs op ver ed tab art ex appx",
      maybe:
        "ca co llc bros plc u.s.a u.n e.u m.d b.a m.a b.sc m.sc d.c esq ave blvd rd sq al eds u.s.s.r b.c a.d
              p.s r.i.p jan feb apr aug sept oct nov dec jun jul tue tues thu thur thurs hrs hr mins min oz lb lbs ft
              est no.s d.phil mph assn dist est.d univ inst hwy",
      starters:
        "The This That These Those He She It We They You I A An In On At But And So If When While After Before
                 There Here What Who Why How Where Which Then Now No Yes My His Her Its Our Their Your As For From
                 With However Although Because One Some Many Most All Not Did Do Does Is Are Was Were Can Could Will
                 Would Please Let Meanwhile Finally Later Today Since Once Such Each Every Both Another Also By To
                 Or Yet Still Thus Therefore Nevertheless Everyone Nobody Somebody Perhaps Maybe Tomorrow Yesterday
                 Next First Second Unfortunately Fortunately Instead Otherwise Well Oh"
    },
    "es" => %{
      always:
        "sr sra srta sres sras srs dra d dña ud uds vd vds p.ej ej lic ing arq gral cnel excmo excma ilmo ilma
               sto sta fr mons dpto av avda avd aprox admón prof profa ntra ntro cap.-gral c.-e pza urb rte
               rdo rda hnos hno tte",
      number: "núm nº n.º pág págs art arts cap caps tel tlf ap fol t",
      maybe:
        "ee.uu ee. s.a s.l cía cia ltda a.c d.c a.de.c d.de.c cta jr ss.mm u.e dic ene feb abr ago sept oct nov",
      starters:
        "El La Los Las Lo Un Una Unos Unas Y Pero Si Cuando Después Antes Entonces Ahora Aquí Allí Él Ella
                 Ellos Ellas Yo Tú Nosotros Usted Ustedes No Sí En De Con Por Para Sin Sobre Este Esta Estos Estas
                 Ese Esa Eso Esto Aquel Qué Quién Cómo Dónde Cuándo Su Sus Mi Mis Al Del Como Aunque También Además
                 Luego Hoy Ayer Mañana Muchos Todos Todo Nadie Hay Era Fue Es Se Me Le"
    },
    "fi" => %{
      always: "esim ks vrt tri dos nk ns puh synt toim ent em ao mts huom lyh yo rva rkp
               kapt luutn maj evl",
      number: "s ss nro luku kpl klo kohta os kuva",
      maybe: "jne ym yms tms eaa e.a.a j.a.a e.kr j.kr ekr jkr milj mrd mm o.s",
      ordinals: :before_small,
      starters:
        "Hän He Se Ne Minä Sinä Me Te Tämä Nämä Tuo Nuo Ja Mutta Kun Jos Sitten Nyt Täällä Siellä Mikä Mitä
                 Kuka Missä Miksi Miten Milloin Ei En Kyllä Eräs Myös Vaikka Koska Ennen Jälkeen Siksi Niin Sen Siitä
                 Tänään Eilen Huomenna Kaikki Moni Monet On Oli"
    },
    "fr" => %{
      always:
        "m mm mme mmes mlle mlles mgr pr me ste sts stes p.ex ex env av bd boul éd c.-à-d c.à.d apr adj dir
               cap gal col lt sgt cdt r.-v resp vve hab trad fg all angl lat",
      number: "n nº n° art arts chap vol t tél réf",
      maybe: "s.a j.-c av.j.-c apr.j.-c s.a.r.l cie janv févr avr juil sept oct nov déc u.e r.f ss suiv",
      starters:
        "Le La Les L' Un Une Des Du De Il Elle Ils Elles On Nous Vous Je J' Tu Ce Cet Cette Ces C' Ça Et Mais Ou
                 Donc Or Si Quand Lorsque Après Avant Puis Alors Maintenant Ici Là Qui Que Quoi Où Comment Pourquoi
                 Combien Son Sa Ses Mon Ma Mes Leur Leurs Notre Votre Dans En À Au Aux Avec Pour Par Sans Sur Sous
                 Oui Non Ne Pas Tout Tous Toute Toutes Cependant Pourtant Ainsi Aussi Comme Aujourd Hier Demain
                 Plus Chaque Quel Quelle"
    },
    "he" => %{
      always: "פרופ",
      number: "מס עמ טל פרק סעיף",
      maybe: "וכו וגו וכד"
    },
    "hi" => %{
      always: "डॉ डा प्रो सुश्री कु पं स्व श्री स्वर्गीय ले मो सं",
      number: "रु क्र पृ",
      maybe: "कि.मी कि.ग्रा ई.पू ई मि.मी",
      initials: "ए बी सी डी ई एफ जी एच आई जे के एल एम एन ओ पी क्यू आर एस टी यू वी डब्ल्यू डब्लू एक्स वाई जेड ज़ेड",
      starters: "यह वह ये वे मैं हम तुम आप और लेकिन पर तब अब यहाँ वहाँ क्या क्यों कौन कब कहाँ कैसे इस उस इन उन एक फिर
                 जब अगर यदि इसलिए हाँ नहीं उसने उन्होंने मैंने हमने"
    },
    "it" => %{
      always: "sig sigg sig.ra sig.na sig.re dott dott.ssa prof.ssa ing avv arch rag geom on sen es p.es cfr
               spett gent s sant s.ta s.to d.ssa mons egr gen col cap ten ca ind f.lli v.le p.za p.zza
               c.so fam rev cav comm",
      number: "n nn nr pag pagg art artt tel par sez fasc",
      maybe: "ecc s.p.a spa s.r.l srl a.c d.c u.s.a u.e s.n.c s.a.s gen. febb sett ott dic",
      starters:
        "Il Lo La I Gli Le L' Un Uno Una Un' E Ed Ma Se Quando Dopo Prima Poi Allora Ora Adesso Qui Qua Lì Là Lui
                 Lei Loro Noi Voi Io Tu Egli Ella Essi Questo Questa Questi Queste Quello Quella Che Chi Cosa Come
                 Dove Perché Quale Quanto Non Sì No In Nel Nella Nei Del Della Dei Al Alla Con Per Da Dal Dalla Su Sul
                 Sulla Tra Fra Suo Sua Mio Mia Tutto Tutti Anche Così Però Oggi Ieri Domani C' È Era Si Ci"
    },
    "ja" => %{},
    "ko" => %{
      ordinals: :dates,
      starters: "그리고 그러나 하지만 그 그는 그녀는 나는 우리는 이 저는 또한 그래서"
    },
    "ms" => %{
      always:
        "en pn tn cik hj hjh dato datuk dato' yb yab ybhg ust ir sdr sdri kpt mej lt jln kg prof.madya tmn cth
               spt lrg bt sg kol jen",
      number: "bil ms hlm jil tel bab gb",
      maybe: "dll dsb dst sdn bhd s.a.w s.w.t a.s r.a t.t",
      starters:
        "Saya Kami Kita Dia Mereka Anda Awak Kamu Beliau Ini Itu Dan Tetapi Namun Jika Apabila Selepas Sebelum
                 Kemudian Sekarang Di Ke Dari Dalam Pada Untuk Dengan Oleh Apa Siapa Mengapa Bagaimana Bila Mana Ya
                 Tidak Ada Semua Setiap Satu Para Walau Walaupun Oleh Hari Semalam Esok"
    },
    "nl" => %{
      always:
        "dhr mevr mw drs ir ing ds bijv bv d.w.z o.a m.a.w t.o.v i.p.v z.g ca incl excl evt zgn resp vgl jl
               a.u.b n.a.v i.v.m m.b.t t.a.v o.l.v mej jhr gen kol kapt ong max min zg geb
               em aub i.t.t i.h.b m.i.v m.n b.v.d",
      number: "nrs blz art afb hfst tel par",
      maybe: "enz b.v n.v a.d n.chr v.chr mln mld a.s m.m e.a e.d jan feb mrt apr aug sept okt nov dec co",
      starters:
        "De Het Een Hij Zij Ze Wij We Jullie Ik Jij Je U Dit Dat Deze Die En Maar Als Toen Daarna Nu Hier Daar
                 Er Wie Wat Waar Waarom Hoe Wanneer Niet Geen Ja Nee In Op Aan Met Van Voor Naar Bij Om Uit Over Na
                 Zijn Haar Mijn Onze Ook Dus Want Of Toch Later Vandaag Gisteren Morgen Alle Veel Sommige"
    },
    "no" => %{
      always: "f.eks bl.a dvs d.v.s hr fr frk ca ang inkl ekskl evt jf pga p.g.a mht m.h.t ifm vedr tlf
               cand adm dir kgl hhv iht mva t.o.m f.o.m o.h",
      number: "nr s kap kl fig art pkt bd",
      maybe: "osv o.s.v m.m m.fl mm mfl o.l f.kr e.kr mill mrd jan feb mar apr aug sept sep okt nov des",
      ordinals: :before_small,
      starters:
        "Det Den De Der Han Hun Jeg Du Vi Dere Og Men Så Da Når Hvis Hva Hvor Hvem Hvordan Hvorfor Et En Ei Etter
                 Før Nå Her Ja Nei På Til Fra Med For Om Ikke Som Mens Senere Derfor Dette Disse I Alle Mange"
    },
    "pl" => %{
      always:
        "np tzn tzw mgr inż hab lek ks św al ul pl os gen płk kpt ppłk mjr por kpr red ok ew wg zob tj ww hr bł
               abp bp śp ś.p doc dyr im ps pt prof.dr dr.hab m.in j.w pow woj płn płd ang niem franc łac
               gr hm",
      number: "str art ust pkt poz rozdz rys tab godz tel nr s",
      maybe: "itd itp r w tys mln mld zł p.n.e n.e s.a sp sp.z.o.o o.o sp.k br bm cdn in i.in",
      ordinals: :before_small,
      starters:
        "To Ten Ta Te Ci On Ona Ono Oni One Ja Ty My Wy I A Ale Lecz Jeśli Jeżeli Kiedy Gdy Potem Następnie Teraz
                 Tu Tutaj Tam W We Na Z Ze Do Od Po Przed Za Przy Co Kto Gdzie Dlaczego Jak Czy Nie Tak Jest Był Była
                 Było Są Jego Jej Ich Mój Moja Każdy Wszyscy Dziś Dzisiaj Jutro Wczoraj Jednak Dlatego Może Już"
    },
    "pt" => %{
      always:
        "sra srs sras srta dra drs profa eng engª exmo exma d dom sto sta p.ex ex av r gen cel cap ten sgt
               ilmo ilma arq adv aprox ir pe pça trav rod al lg dep gov min pres",
      number: "n nº núm n.º pág págs art arts tel fls inc",
      maybe: "e.u.a eua s.a ltda lda cia a.c d.c u.e jan fev abr ago set out nov dez cx",
      starters:
        "O A Os As Um Uma Uns Umas E Mas Se Quando Depois Antes Então Agora Aqui Ali Lá Ele Ela Eles Elas Eu Tu
                 Nós Você Vocês Não Sim Em No Na Nos Nas Do Da De Com Por Para Sem Sobre Este Esta Estes Esse Essa
                 Isso Isto Aquele Que Quem Como Onde Porque Seu Sua Meu Minha Ao À Também Além Embora Hoje Ontem
                 Amanhã Muitos Todos Tudo Ninguém Há Era Foi É"
    },
    "ru" => %{
      always:
        "т.е т.к т.н и.о им г-н г-жа гг ул пр пер просп пл наб обл р-н пос дер кв корп проф акад доц д-р инж св см
               ср напр англ нем фр лат рус греч тов гр ген полк кап лейт серж ок прибл врио зав зам мл ст ныне
               тел род буд м.б т.о",
      number: "стр с рис табл гл ч п пп ст т тт вып илл д оф № кн",
      maybe: "т.д т.п др пр г гг в вв н.э до.н.э р руб коп тыс млн млрд чел мин сек час кг и.т.д и.т.п и.др
              янв февр апр авг сент окт нояб дек",
      starters:
        "Он Она Оно Они Я Ты Мы Вы Это Этот Эта Эти Тот Та Те И А Но Да Если Когда Потом Затем Теперь Сейчас
                 Здесь Там Тут В Во На С Со К Из От До По За При Об О У Что Кто Где Почему Как Зачем Не Нет Был Была
                 Было Были Его Её Ее Их Мой Моя Наш Все Всё Каждый Сегодня Завтра Вчера Однако Поэтому Так Тогда После
                 Перед Для Уже Ещё Еще Для"
    },
    "sv" => %{
      always:
        "t.ex bl.a d.v.s dvs hr fr ca f.d s.k p.g.a pga resp inkl exkl ev tel fr.o.m t.o.m jfr jfr.m s:t s:ta
               tf fil.dr med.dr m.a.o p.s o.dyl i.st kungl red ang avd bitr",
      number: "nr s sid kap art fig kl st §",
      maybe: "osv o.s.v m.m m.fl e.kr f.kr o.d mkr tkr mdr jan feb apr aug sept okt nov dec ab",
      starters:
        "Det Den De Han Hon Jag Du Vi Ni En Ett Och Men Så Då När Om Här Där Vad Vem Var Varför Hur Inte Ja Nej På I
                 Till Från Med För Av Efter Före Nu Detta Denna Dessa Som Medan Sedan Senare Därför Alla Många Hans
                 Hennes Min Mitt Idag Igår Imorgon Man"
    },
    "sw" => %{
      always: "bw bi dkt dk mhe mh k.m ndg mwl sh tsh ksh mchg padri mt",
      number: "na uk nam",
      maybe: "n.k nk k.k b.k k.w n.w k.v k.w.k",
      starters:
        "Yeye Mimi Sisi Wewe Nyinyi Wao Huyu Hii Hiyo Hizi Hivyo Na Lakini Kama Ikiwa Baada Kabla Sasa Hapa Huko
                 Nini Nani Wapi Kwa Kwamba Katika Ndiyo Hapana Si Ni Alikuwa Walikuwa Leo Jana Kesho Watu Kila Wote
                 Basi Kisha Ilikuwa"
    },
    "tr" => %{
      always: "doç yrd av sn bkz örn mah cad sok sk apt hz alb gen org yzb bşk müh mim öğr arş gör uzm ecz
               onb tğm ütğm krş yy haz çev üni",
      number: "s sf sy c md tel no böl şek",
      maybe: "vb vs vd a.ş ltd şti m.ö m.s t.c tl ds dk sn.d",
      ordinals: :before_any,
      starters:
        "Bu Şu O Bunlar Onlar Ben Sen Biz Siz Ve Ama Fakat Ancak Eğer Sonra Önce Şimdi Burada Orada Ne Kim Nerede
                 Neden Niçin Nasıl Hayır Evet Bir Her Bütün Tüm Çünkü Yine Daha Çok Artık Bugün Dün Yarın Onun Benim
                 Böylece"
    },
    "zh" => %{}
  }

  @codes @languages |> Map.keys() |> Enum.sort()

  words = fn entry, key -> entry |> Map.get(key, "") |> String.split() end

  @rules Map.new(@languages, fn {code, own} ->
           # A language's own entry overrides the common one.
           kinds =
             for source <- [@common, own],
                 {key, kind} <- [maybe: :maybe, number: :number, always: :always, initials: :initial],
                 word <- words.(source, key),
                 into: %{},
                 do: {word, kind}

           {code,
            %{
              code: code,
              kinds: kinds,
              ordinals: own[:ordinals],
              endings: words.(own, :endings),
              starters: Map.new(words.(own, :starters), &{String.trim_trailing(&1, "'"), true}),
              semicolon_asks: code == "el"
            }}
         end)

  @type rules :: %{
          code: String.t(),
          kinds: %{String.t() => :always | :number | :maybe | :initial},
          ordinals: nil | :before_any | :before_small | :dates,
          endings: [String.t()],
          starters: %{String.t() => true},
          semicolon_asks: boolean
        }

  @doc """
  The languages' codes, in order.
  """
  @spec languages() :: [String.t()]
  def languages, do: @codes

  @doc """
  The rules of a language, by its code.
  """
  @spec fetch(String.t()) :: {:ok, rules} | :error
  def fetch(code), do: Map.fetch(@rules, code)
end
