/* People in a balanced tree, coming and going; walked in order; sorted as a list. */
#include "pointers.h"

/* People: names by syllables, as a customer file has them. */
static const char *const first_names[] = {"Ada", "Boris", "Clara", "Dennis", "Edsger", "Frances", "Grace", "Hedy", "Ivan", "Joan",
                                          "Ken", "Leslie", "Margaret", "Niklaus", "Olga", "Peter", "Radia", "Sophie", "Tony", "Yuri"};
static const char *const first_syllables[] = {"Al", "Bran", "Cor", "Dor", "El", "Far", "Gar", "Hol", "Kas", "Lan", "Mar", "Nor"};
static const char *const last_syllables[] = {"berg", "den", "field", "ham", "kin", "land", "mann", "ova", "rup", "son", "ton", "well"};

struct person {
        struct person *left, *right, *next;
        char *name;
        u32 id;
        u16 born;
        u8 height, flags;
        i64 balance;
};

static struct person *person_new(u32 id)
{
        char name[64], *at = append(name, first_names[choose(ARRAY_LENGTH(first_names))]);
        struct person *person = allocate(sizeof *person);
        at = append(at, " ");
        at = append(at, first_syllables[choose(ARRAY_LENGTH(first_syllables))]);
        append(at, last_syllables[choose(ARRAY_LENGTH(last_syllables))]);
        *person = (struct person){0, 0, 0, copy_of(name), id, (u16)(1920 + choose(90)), 1, (u8)choose(4), (i64)choose(100000) - 20000};
        return person;
}

static void person_release(struct person *person)
{
        release(person->name);
        release(person);
}

/* Balanced trees (AVL) of people by id. */
static u32 height(const struct person *tree) { return tree ? tree->height : 0; }

static void measure(struct person *tree)
{
        u32 left = height(tree->left), right = height(tree->right);
        tree->height = (u8)(1 + (left > right ? left : right));
}

static struct person *rotate_left(struct person *tree)
{
        struct person *top = tree->right;
        tree->right = top->left;
        top->left = tree;
        measure(tree);
        measure(top);
        return top;
}

static struct person *rotate_right(struct person *tree)
{
        struct person *top = tree->left;
        tree->left = top->right;
        top->right = tree;
        measure(tree);
        measure(top);
        return top;
}

static struct person *balance(struct person *tree)
{
        u32 left = height(tree->left), right = height(tree->right);
        if (left > right + 1) {
                if (height(tree->left->left) < height(tree->left->right))
                        tree->left = rotate_left(tree->left);
                return rotate_right(tree);
        }
        if (right > left + 1) {
                if (height(tree->right->right) < height(tree->right->left))
                        tree->right = rotate_right(tree->right);
                return rotate_left(tree);
        }
        measure(tree);
        return tree;
}

static struct person *insert(struct person *tree, struct person *person)
{
        if (!tree)
                return person;
        if (person->id < tree->id)
                tree->left = insert(tree->left, person);
        else
                tree->right = insert(tree->right, person);
        return balance(tree);
}

static struct person *take_least(struct person *tree, struct person **least)
{
        if (!tree->left) {
                *least = tree;
                return tree->right;
        }
        tree->left = take_least(tree->left, least);
        return balance(tree);
}

static struct person *delete(struct person *tree, u32 id, struct person **taken)
{
        struct person *next;
        if (!tree)
                return 0;
        if (id < tree->id) {
                tree->left = delete(tree->left, id, taken);
                return balance(tree);
        }
        if (id > tree->id) {
                tree->right = delete(tree->right, id, taken);
                return balance(tree);
        }
        *taken = tree;
        if (!tree->right)
                return tree->left;
        tree->right = take_least(tree->right, &next);
        next->left = tree->left;
        next->right = tree->right;
        return balance(next);
}

struct walk { u64 sum, people, last, errors; };
static void in_order(const struct person *tree, struct walk *walk)
{
        i64 slope;
        if (!tree)
                return;
        in_order(tree->left, walk);
        slope = (i64)height(tree->left) - (i64)height(tree->right);
        if ((walk->people && tree->id <= walk->last) || slope < -1 || slope > 1)
                walk->errors++;
        walk->last = tree->id;
        walk->people++;
        walk->sum = walk->sum * 31 + tree->id * 7 + (u64)tree->balance + (u8)tree->name[0] + tree->born;
        in_order(tree->right, walk);
}

/* Merge sort of the list that goes through `next`, by name and then id. */
static struct person *merge(struct person *a, struct person *b)
{
        struct person head, *last = &head;
        while (a && b) {
                int order = compare(a->name, b->name);
                struct person **less = order < 0 || (order == 0 && a->id < b->id) ? &a : &b;
                last->next = *less;
                last = *less;
                *less = last->next;
        }
        last->next = a ? a : b;
        return head.next;
}

static struct person *sort(struct person *list)
{
        struct person *slow = list, *fast, *second;
        if (!list || !list->next)
                return list;
        for (fast = list->next; fast && fast->next; fast = fast->next->next)
                slow = slow->next;
        second = slow->next;
        slow->next = 0;
        return merge(sort(list), sort(second));
}

static struct person *list_of(struct person *tree, struct person *rest)
{
        for (; tree; tree = tree->left) {
                rest = list_of(tree->right, rest);
                tree->next = rest;
                rest = tree;
        }
        return rest;
}

u64 people(u64 divide, u64 *sorted)
{
        u32 n = (u32)(4000 / divide) + 20, ids = n * 4;
        struct person *tree = 0, *taken, *list;
        struct walk walk = {0};
        u64 inside = 0;
        for (u32 step = 0; step < 6 * n; step++) {
                u32 id = choose(ids);
                taken = 0;
                tree = delete(tree, id, &taken);
                if (taken) {
                        inside--;
                        person_release(taken);
                } else if (inside < n) {
                        tree = insert(tree, person_new(id));
                        inside++;
                }
        }
        in_order(tree, &walk);
        if (walk.errors || walk.people != inside)
                guest_exit(3);
        list = sort(list_of(tree, 0));
        for (const struct person *at = list; at; at = at->next) {
                if (at->next && compare(at->name, at->next->name) > 0)
                        guest_exit(4);
                *sorted = *sorted * 31 + at->id;
        }
        while (list) {
                taken = list;
                list = list->next;
                person_release(taken);
        }
        return walk.sum;
}
