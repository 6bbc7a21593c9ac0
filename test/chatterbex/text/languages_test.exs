defmodule Chatterbex.Text.LanguagesTest do
  use ExUnit.Case, async: true

  alias Chatterbex.Text

  # Each text as the list of its sentences. They are joined by a space, or by nothing in the languages of @unspaced.
  @unspaced ["ja", "zh"]

  @examples %{
    "ar" => [
      ["ذهب الولد إلى المدرسة.", "هل درس جيدا؟", "نعم!"],
      ["قال د. أحمد إن النتيجة 3.14 تقريبا.", "ثم غادر."],
      ["اشترى كتبا وأقلاما، إلخ.", "ثم عاد إلى البيت؟", "لا أعلم."],
      ["قالت: «أين أنت؟»", "لم يجب أحد."],
      ["عمل أ.د. محمد مع م. سعيد في القاهرة.", "انتهى العمل."],
      ["راجع ص. 12 من الكتاب.", "ستجد الجواب هناك."]
    ],
    "da" => [
      ["Han kom den 3. maj kl. 10.30 med bl.a. hr. Hansen.", "Så gik han."],
      ["Det koster ca. 1.000,50 kr. pr. stk. inkl. moms.", "Er det dyrt?"],
      ["Dr. Jensen bor i Odense, jf. s. 12.", "Hun er læge."],
      ["Christian 4. og hans tårn er gamle.", "Hun er 25.", "Hansen er 30."],
      ["»Kommer du?« spurgte hun.", "»Ja!« sagde han."],
      ["Æbler, pærer osv. er frugt.", "Vi har æbler, pærer osv.", "De er gode."]
    ],
    "de" => [
      ["Er kam am 3. Mai 1999 z.B. mit Dr. Kohl.", "Dann ging er."],
      ["Das sind z. B. Äpfel, d. h. Obst usw. und mehr.", "Es kostet 1.000,50 Euro."],
      ["Im 19. Jahrhundert lebte Prof. Dr. med. Schmidt.", "Er war Arzt."],
      ["„Kommst du?“ fragte sie.", "„Nein!“", "Er blieb."],
      ["Er wohnt in der Hauptstr. 5 in Köln.", "Dort ist es ruhig."],
      ["Ludwig XIV. regierte lange.", "Karl V. König von Spanien, war alt."],
      ["Vgl. Abb. 3 und § 5 Abs. 2 BGB.", "Das genügt."],
      ["Das war 1984.", "Danach kam nichts."],
      ["Wir sahen Äpfel, Birnen usw.", "Die Ernte war gut."],
      ["Um 10.30 Uhr bzw. ca. 11 Uhr kam Fr. Müller.", "Sie lachte."]
    ],
    "el" => [
      ["Πού πας;", "Πάω στο σπίτι."],
      ["Ο κ. Παπαδόπουλος ήρθε, π.χ. χθες.", "Έφυγε αμέσως."],
      ["Αγόρασε μήλα, αχλάδια κ.λπ. και έφυγε.", "Κόστισε 3,14 ευρώ."],
      ["«Τι ώρα είναι;» ρώτησε.", "«Δεν ξέρω.»", "Σιώπησαν."],
      ["Βλ. σελ. 12 και αρ. 5 του νόμου.", "Είναι σαφές;", "Ναι!"]
    ],
    "en" => [
      ["Mr. and Mrs. Smith met Dr. Brown at 5 p.m. in St. Louis.", "They had coffee."],
      ["J. K. Rowling wrote it.", "George W. Bush did not."],
      ["Pi is 3.14.", "It costs $1,000.50!", "Really?"],
      ["See https://example.com/a.b?c=d for more.", "Or write to a.b@example.com.", "Bye."],
      ["The U.S. Army left.", "He came to the U.S.", "She stayed."],
      ["Version 2.0.1 is out.", "Use Node.js v18.2.", "It starts at 10:30."],
      ["Wait... what?", "I don't know..."],
      ["\"Stop!\" he cried.", "\"Why?\" she asked.", "(He left.)", "She sat down."],
      ["He said, \"Go home.\"", "Then he slept."],
      ["See Fig. 3, p. 12, vol. II and No. 5.", "He said no.", "Then he left."],
      ["Apples, pears, etc. are fruit.", "We have apples, etc.", "They are ripe."],
      ["He works at Apple Inc. in Ohio.", "She has a Ph.D. in physics."],
      ["We tried e.g. this, i.e. that, vs. Those others.", "Done."],
      ["It is 5 a.m. Monday.", "He left at 5 p.m.", "The end."],
      ["What?!", "No way!!!", "Yes."],
      ["It ended.[12]", "Nobody knew.¹", "Good."],
      ["Great! 😀", "Next one."],
      ["**Bold.**", "_Then_ plain."],
      ["In Dec. 2020 it snowed.", "In Jan. it thawed."],
      ["He moved to 5 Main St. in May.", "The house is old."],
      ["I use .NET.", "It works."],
      ["He lost.", "...And then he won."],
      ["Solve for x.", "The answer is 4."],
      ["It was you and I.", "We knew."],
      ["hello there.", "how are you?", "fine."]
    ],
    "es" => [
      ["¿Cómo está Ud. hoy?", "¡Muy bien!", "Gracias."],
      ["El Sr. García y la Sra. López viven en la Avda. Mayor.", "Son felices."],
      ["Hay frutas, p. ej. manzanas, peras, etc. en la mesa.", "Cuestan 1.000,50 euros."],
      ["Vive en EE.UU. desde 1999.", "El Dr. Ruiz lo sabe."],
      ["—¿Vienes? —preguntó ella.", "—No.", "Y se fue."],
      ["Véase la pág. 12 y el art. 5.", "Es claro."]
    ],
    "fi" => [
      ["Hän syntyi 3. toukokuuta 1999.", "Hän asuu Turussa."],
      ["Esim. omenat, päärynät jne. ovat hedelmiä.", "Ne maksavat n. 3,50 euroa."],
      ["Ks. s. 12 ja vrt. kuva 3.", "Selvä!"],
      ["Tuletko klo 10.30?", "En."],
      ["”Missä olet?” hän kysyi.", "”Täällä.”", "Tuli hiljaista."]
    ],
    "fr" => [
      ["M. Dupont et Mme Martin sont arrivés.", "Ils sont ravis."],
      ["Comment ça va ?", "Bien !", "Et toi ?"],
      ["« Bonjour. »", "Il partit."],
      ["« Quoi ? » demanda-t-elle.", "Il sourit."],
      ["Il y a des fruits, p. ex. des pommes, etc. dans le panier.", "C'est 1 000,50 €."],
      ["Voir p. 12, art. 5 et fig. 3.", "J.-C. Duval le dit.", "Le Dr. Rey aussi."],
      ["L'an 50 av. J.-C. fut rude.", "Rome tomba."],
      ["Ça va\u00A0?", "Oui\u00A0!", "Parfait."]
    ],
    "he" => [
      ["הילד הלך לבית הספר.", "האם הוא למד?", "כן!"],
      ["א. ב. יהושע כתב ספר.", "הוא טוב."],
      ["קנינו תפוחים, אגסים וכו'.", "חזרנו הביתה."],
      ["פרופ. כהן אמר 3.14.", "זה נכון."],
      ["ראה עמ. 12 בספר.", "שם התשובה."],
      ["״לאן?״", "שאלה."]
    ],
    "hi" => [
      ["यह एक किताब है।", "क्या आप ठीक हैं?", "हाँ!"],
      ["डॉ. शर्मा आए।", "वे चले गए।"],
      ["ए. पी. जे. अब्दुल कलाम राष्ट्रपति थे।", "वे वैज्ञानिक थे।"],
      ["कीमत 3.14 रुपये है।", "यह सस्ता है॥", "ठीक।"],
      ["उसने कहा, \"तुम कहाँ हो?\"", "कोई नहीं बोला।"],
      ["यह अच्छा है.", "वह बुरा है."]
    ],
    "it" => [
      ["Il sig. Rossi e la sig.ra Bianchi sono qui.", "Come stanno?"],
      ["Il dott. Verdi ha comprato mele, pere, ecc. al mercato.", "Costano 1.000,50 euro."],
      ["Vedi pag. 12 e l'art. 5 del codice.", "È chiaro!"],
      ["«Dove vai?» chiese.", "«A casa.»", "Uscì."],
      ["Lavora per la Fiat S.p.A. di Torino.", "La prof.ssa Neri lo sa, p.es. oggi."]
    ],
    "ja" => [
      ["今日は晴れです。", "明日はどうですか？", "雨です！"],
      ["「走れ！」と言った。", "彼は走った。"],
      ["「はい。」", "彼女は答えた。"],
      ["円周率は3.14です。", "バージョン2.0を使う。"],
      ["えっ！？", "本当（ほんとう）？", "うん……たぶん。"],
      ["これは『吾輩は猫である。』という本です。", "面白い。"],
      ["時刻は１０：３０です．", "遅い．"]
    ],
    "ko" => [
      ["안녕하세요.", "저는 학생입니다.", "당신은요?"],
      ["가격은 3.14달러입니다.", "비싸요!"],
      ["그는 Dr. Kim을 만났다.", "좋았다."],
      ["\"어디 가요?\"", "그가 물었다.", "집에 가요."],
      ["네.", "그래요.", "날짜는 2024. 5. 3.입니다."]
    ],
    "ms" => [
      ["En. Ahmad dan Pn. Siti tinggal di Jln. Ampang.", "Mereka gembira."],
      ["Ada epal, pisang dll. di pasar.", "Harganya RM3.50."],
      ["Prof. Dr. Lim hadir pada pukul 10.30 pagi.", "Beliau tersenyum."],
      ["\"Ke mana?\" tanya dia.", "\"Rumah!\"", "Dia pergi."],
      ["Lihat hlm. 12 dan no. 5.", "Jelas?"]
    ],
    "nl" => [
      ["Dhr. Jansen en mevr. De Vries kwamen om 10.30 uur.", "Ze lachten."],
      ["Er zijn appels, peren, enz. in de winkel.", "Het kost ca. 1.000,50 euro."],
      ["Dat is o.a. goed, d.w.z. prima.", "Zie blz. 12 en art. 5."],
      ["'Kom je?' vroeg hij.", "'Nee!'", "Ze bleef."],
      ["Prof. dr. A. B. van Dam schreef het.", "Hij won."]
    ],
    "no" => [
      ["Han kom 3. mai kl. 10.30 med bl.a. hr. Olsen.", "Så gikk han."],
      ["Det koster ca. 1 000,50 kroner, f.eks. her.", "Er det dyrt?"],
      ["Dr. Berg bor i Oslo, jf. s. 12.", "Hun er lege."],
      ["«Kommer du?» spurte hun.", "«Ja!» sa han.", "Han gikk."],
      ["Epler, pærer osv. er frukt.", "Vi har epler osv.", "De er gode."]
    ],
    "pl" => [
      ["Przyszedł 3. maja o godz. 10.30 m.in. z dr. Nowakiem.", "Potem wyszedł."],
      ["Jabłka, gruszki itd. są tanie.", "Kosztują ok. 3,50 zł."],
      ["Prof. Kowalski mieszka przy ul. Długiej, np. od roku.", "Jest zadowolony."],
      ["„Dokąd idziesz?” zapytała.", "„Do domu!”", "Wyszedł."],
      ["Zob. str. 12 i art. 5 ust. 2.", "To jasne."],
      ["Kupił jabłka, gruszki itp.", "Potem wrócił."]
    ],
    "pt" => [
      ["O Sr. Silva e a Sra. Costa moram na Av. Central.", "São felizes."],
      ["Há frutas, p. ex. maçãs, peras, etc. na mesa.", "Custam 1.000,50 reais."],
      ["A Dra. Lima trabalha nos E.U.A. desde 1999.", "Ela gosta."],
      ["— Você vem? — perguntou ela.", "— Não!", "Ele ficou."],
      ["Ver pág. 12 e art. 5.", "É claro.", "D. Pedro chegou."]
    ],
    "ru" => [
      ["А. С. Пушкин родился в 1799 г. в Москве.", "Он был поэтом."],
      ["Это было в 1990 г.", "Он уехал."],
      ["Яблоки, груши и т. д. лежат на столе.", "Цена 3,14 руб. за кг."],
      ["«Стой!» — крикнул он.", "Все замерли."],
      ["Живу на ул. Ленина, д. 5, т.е. рядом.", "Приходи!"],
      ["См. стр. 12 и рис. 3.", "Проф. Иванов согласен?", "Да."],
      ["Мы купили яблоки и т.п.", "Потом ушли…", "Всё."]
    ],
    "sv" => [
      ["Han kom den 3 maj kl. 10.30 med bl.a. hr. Berg.", "Sedan gick han."],
      ["Det kostar ca. 1 000,50 kr, t.ex. här.", "Är det dyrt?"],
      ["Äpplen, päron osv. är frukt.", "Vi har äpplen m.m.", "De är goda."],
      ["”Kommer du?” frågade hon.", "”Ja!”", "Hon gick."],
      ["Dr. Ek bor i Lund fr.o.m. maj, jfr. s. 12.", "Hon är glad."]
    ],
    "sw" => [
      ["Bw. Juma na Bi. Asha walifika.", "Walifurahi."],
      ["Kuna matunda, k.m. ndizi, maembe n.k. sokoni.", "Bei ni Sh. 3,500.50."],
      ["Dkt. Mwangi yuko wapi?", "Yuko nyumbani!"],
      ["\"Unakwenda wapi?\" aliuliza.", "\"Nyumbani.\"", "Aliondoka."],
      ["Tazama uk. 12 wa kitabu.", "Ni wazi."]
    ],
    "tr" => [
      ["Dr. Yılmaz 3. katta oturuyor.", "Onu gördün mü?"],
      ["19. Yüzyılda Av. Demir burada yaşadı.", "Bu ev onundu."],
      ["Elma, armut vb. meyveler var.", "Fiyatı 1.000,50 TL."],
      ["\"Nereye?\" diye sordu.", "\"Eve!\"", "Gitti."],
      ["Bkz. s. 12 ve No. 5.", "Doç. Kaya haklı, örn. burada."],
      ["Elma, armut vs. aldık.", "Biz eve döndük."]
    ],
    "zh" => [
      ["今天天气很好。", "你呢？", "我也是！"],
      ["他说：“你好！”", "然后走了。"],
      ["圆周率是3.14。", "请访问https://example.com/a?b=c，谢谢。"],
      ["卡尔·马克思（1818年生）是谁？！", "我……不知道。"],
      ["《红楼梦》很长。", "“真的吗？”", "“真的。”"],
      ["你好!", "我很好.", "再见"]
    ]
  }

  test "every language of the models has examples" do
    assert Text.languages() == ~w(ar da de el en es fi fr he hi it ja ko ms nl no pl pt ru sv sw tr zh)
    assert @examples |> Map.keys() |> Enum.sort() == Text.languages()
    for {_language, examples} <- @examples, do: assert(length(examples) >= 4)
  end

  for {language, examples} <- @examples do
    test "#{language}" do
      for sentences <- unquote(examples) do
        joint = if unquote(language) in @unspaced, do: "", else: " "
        text = Enum.join(sentences, joint)
        assert Text.sentences!(text, language: unquote(language)) == sentences
      end
    end

    test "#{language}, byte by byte" do
      for sentences <- unquote(examples) do
        joint = if unquote(language) in @unspaced, do: "", else: " "
        bytes = for <<byte <- Enum.join(sentences, joint)>>, do: <<byte>>
        assert bytes |> Text.stream(language: unquote(language), max: 400) |> Enum.map(& &1.text) == sentences
      end
    end

    if language not in @unspaced do
      test "#{language}, wrapped" do
        for sentences <- unquote(examples), width <- [40, 72] do
          wrapped = sentences |> Enum.join(" ") |> wrap(width)
          assert Text.sentences!(wrapped, language: unquote(language)) == sentences
        end
      end
    end
  end

  # Breaks lines after `width` characters, but not before what would begin an item of a list there.
  defp wrap(text, width) do
    text
    |> String.split(" ")
    |> Enum.reduce({[], 0}, fn word, {lines, size} ->
      length = String.length(word)

      if size + length > width and not (word =~ ~r/^([(—–-]|\d+\.)/u),
        do: {[lines, "\n", word], length},
        else: {[lines, if(lines == [], do: "", else: " "), word], size + length + 1}
    end)
    |> elem(0)
    |> IO.iodata_to_binary()
  end
end
