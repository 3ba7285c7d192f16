/* Expressions: text, a tree of nodes that know their operations, simplified, evaluated. Values wrap. */
#include "pointers.h"

struct node;
struct operations {
        u64 (*evaluate)(const struct node *node, const u64 *variables);
        struct node *(*simplify)(struct node *node);
};
struct node { const struct operations *operations; struct node *left, *right; u64 value; };
static const struct operations number, variable, sum, difference, product, quotient, greater;

static struct node *node_new(const struct operations *operations, struct node *left, struct node *right, u64 value)
{
        struct node *node = allocate(sizeof *node);
        *node = (struct node){operations, left, right, value};
        return node;
}

static void node_release(struct node *node)
{
        if (!node)
                return;
        node_release(node->left);
        node_release(node->right);
        release(node);
}

static u64 evaluate(const struct node *node, const u64 *variables) { return node->operations->evaluate(node, variables); }
static struct node *simplify(struct node *node) { return node->operations->simplify(node); }

static u64 number_evaluate(const struct node *node, const u64 *variables)
{
        (void)variables;
        return node->value;
}
static u64 variable_evaluate(const struct node *node, const u64 *variables) { return variables[node->value]; }
static u64 sum_evaluate(const struct node *node, const u64 *variables)
{
        return evaluate(node->left, variables) + evaluate(node->right, variables);
}
static u64 difference_evaluate(const struct node *node, const u64 *variables)
{
        return evaluate(node->left, variables) - evaluate(node->right, variables);
}
static u64 product_evaluate(const struct node *node, const u64 *variables)
{
        return evaluate(node->left, variables) * evaluate(node->right, variables);
}
static u64 quotient_evaluate(const struct node *node, const u64 *variables)
{
        u64 divisor = evaluate(node->right, variables);
        return divisor ? evaluate(node->left, variables) / divisor : 0;
}
static u64 greater_evaluate(const struct node *node, const u64 *variables)
{
        u64 a = evaluate(node->left, variables), b = evaluate(node->right, variables);
        return a > b ? a : b;
}

static struct node *leaf_simplify(struct node *node) { return node; }

static int is(const struct node *node, u64 value) { return node->operations == &number && node->value == value; }

/* Keeps one of the two operands. */
static struct node *keep(struct node *node, struct node *kept)
{
        node_release(kept == node->left ? node->right : node->left);
        release(node);
        return kept;
}

static struct node *operands_simplify(struct node *node)
{
        node->left = simplify(node->left);
        node->right = simplify(node->right);
        if (node->left->operations == &number && node->right->operations == &number) {
                u64 value = evaluate(node, 0);
                node_release(node->left);
                node_release(node->right);
                *node = (struct node){&number, 0, 0, value};
        }
        return node;
}
static struct node *sum_simplify(struct node *node)
{
        node = operands_simplify(node);
        if (node->operations == &sum && is(node->left, 0))
                return keep(node, node->right);
        return node->operations == &sum && is(node->right, 0) ? keep(node, node->left) : node;
}
static struct node *product_simplify(struct node *node)
{
        node = operands_simplify(node);
        if (node->operations != &product)
                return node;
        if (is(node->left, 0) || is(node->right, 1))
                return keep(node, node->left);
        return is(node->left, 1) || is(node->right, 0) ? keep(node, node->right) : node;
}

static const struct operations number = {number_evaluate, leaf_simplify}, variable = {variable_evaluate, leaf_simplify},
                               sum = {sum_evaluate, sum_simplify}, difference = {difference_evaluate, operands_simplify},
                               product = {product_evaluate, product_simplify}, quotient = {quotient_evaluate, operands_simplify},
                               greater = {greater_evaluate, operands_simplify};

static char *write_expression(char *at, u32 depth)
{
        if (!depth || choose(8) == 0) {
                if (choose(2)) {
                        *at++ = (char)('a' + choose(8));
                        *at = 0;
                        return at;
                }
                return append_number(at, choose(4) ? choose(3) : choose(1000));
        }
        *at++ = '(';
        at = write_expression(at, depth - 1);
        *at++ = "+-*/>+*"[choose(7)];
        at = write_expression(at, depth - 1);
        return append(at, ")");
}

static struct node *parse(const char **at)
{
        const struct operations *operations;
        struct node *left, *right;
        if (**at >= 'a')
                return node_new(&variable, 0, 0, (u64)(*(*at)++ - 'a'));
        if (**at != '(') {
                u64 value = 0;
                while (**at >= '0' && **at <= '9')
                        value = value * 10 + (u64)(*(*at)++ - '0');
                return node_new(&number, 0, 0, value);
        }
        ++*at;
        left = parse(at);
        switch (*(*at)++) {
        case '+': operations = &sum; break;
        case '-': operations = &difference; break;
        case '*': operations = &product; break;
        case '/': operations = &quotient; break;
        default: operations = &greater;
        }
        right = parse(at);
        ++*at;
        return node_new(operations, left, right, 0);
}

u64 expressions(u64 divide)
{
        static char text[1 << 16];
        u64 variables[8], total = 0;
        u32 n = (u32)(16 / divide) + 4;
        for (u32 round = 0; round < n; round++) {
                const char *at = text;
                struct node *tree;
                u64 before = 0, after_it = 0;
                write_expression(text, divide == 1 ? 9 : 6);
                tree = parse(&at);
                for (u32 pass = 0; pass < 2; pass++) {
                        for (u32 x = 0; x < 24; x++) {
                                u64 *into = pass ? &after_it : &before;
                                for (u32 v = 0; v < 8; v++)
                                        variables[v] = x * (v + 1) + v;
                                *into = *into * 31 + evaluate(tree, variables);
                        }
                        tree = simplify(tree);
                }
                if (before != after_it)
                        guest_exit(5);
                node_release(tree);
                total = total * 31 + before;
        }
        return total;
}
