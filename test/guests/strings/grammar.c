/* A text by a small grammar: paragraphs, sentences, noun phrases with adjectives, relative clauses. */
#include "strings.h"

static const char *const nouns[] = {"engineer", "machine", "page", "register", "clock", "letter", "city", "river", "winter", "house",
                                    "table", "question", "answer", "morning", "teacher", "book", "road", "memory", "picture", "song",
                                    "window", "garden", "computer", "program", "story", "mountain", "number", "language", "train", "boat"};
static const char *const verbs[] = {"finds", "writes", "reads", "remembers", "follows", "builds", "opens", "closes", "carries", "counts",
                                    "describes", "repairs", "leaves", "watches", "changes", "forgets", "explains", "moves", "keeps", "likes"};
static const char *const adjectives[] = {"old", "new", "small", "quiet", "green", "heavy", "slow", "bright", "empty", "long",
                                         "famous", "careful", "broken", "simple", "strange", "warm", "distant", "early", "wooden", "second"};
static const char *const others[] = {"naïve", "façade", "Übung", "čas", "książka", "дорога", "книга", "θάλασσα", "水", "本"};
static const char *const links[] = {"and", "but", "because", "while", "although", "so that"};
static const char *const places[] = {"in", "under", "behind", "near", "after", "before"};

static u64 state;
static u32 choose(u32 limit)
{
        state = state * 6364136223846793005 + 1442695040888963407;
        return (u32)((state >> 32) * limit >> 32);
}

struct writer { u8 *at; u64 column; int unicode; };

static void put(struct writer *writer, const char *text)
{
        u64 length = length_of(text);
        writer->at = copy(writer->at, text, length);
        writer->column += length;
}

/* A blank, or the end of the line where one is long enough. */
static void space(struct writer *writer)
{
        *writer->at++ = writer->column < 72 ? ' ' : '\n';
        writer->column = writer->column < 72 ? writer->column + 1 : 0;
}

static void word(struct writer *writer, const char *text)
{
        put(writer, text);
        space(writer);
}

static void sentence_part(struct writer *writer, u32 depth);

static void noun_phrase(struct writer *writer, u32 depth)
{
        word(writer, choose(3) ? "the" : "a");
        while (choose(3) == 0)
                word(writer, writer->unicode && choose(4) == 0 ? others[choose(ARRAY_LENGTH(others))] : adjectives[choose(ARRAY_LENGTH(adjectives))]);
        word(writer, nouns[choose(ARRAY_LENGTH(nouns))]);
        if (depth && choose(5) == 0) {
                word(writer, "that");
                word(writer, verbs[choose(ARRAY_LENGTH(verbs))]);
                noun_phrase(writer, depth - 1);
        }
}

static void sentence_part(struct writer *writer, u32 depth)
{
        noun_phrase(writer, depth);
        word(writer, verbs[choose(ARRAY_LENGTH(verbs))]);
        noun_phrase(writer, depth);
        if (choose(3) == 0) {
                word(writer, places[choose(ARRAY_LENGTH(places))]);
                noun_phrase(writer, 0);
        }
        if (depth && choose(3) == 0) {
                word(writer, links[choose(ARRAY_LENGTH(links))]);
                sentence_part(writer, depth - 1);
        }
}

u64 write_text(u8 *text, u64 limit, int unicode)
{
        struct writer writer = {text, 0, unicode};
        state = 0x853c49e6748fea9b;
        while ((u64)(writer.at - text) + 2048 < limit) {
                u8 *first = writer.at;
                sentence_part(&writer, 2);
                if (*first >= 'a' && *first <= 'z')
                        *first -= 'a' - 'A';
                writer.at[-1] = '.';
                if (choose(6)) {
                        space(&writer);
                } else {
                        put(&writer, "\n\n");
                        writer.column = 0;
                }
        }
        return (u64)(writer.at - text);
}
